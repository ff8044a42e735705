//! Compression algorithms, encoded messages, and the iterator and errors of metadata and codes.
//!
//! Most programs need none of these types. To add a compression algorithm, implement [`Compressor`] and pass it to
//! [`Server::compressor`](crate::Server::compressor) and
//! [`ChannelBuilder::compressor`](crate::ChannelBuilder::compressor).

#[cfg(feature = "deflate")]
pub use trunkline_codec::Deflate;
#[cfg(feature = "gzip")]
pub use trunkline_codec::Gzip;
#[cfg(feature = "zstd")]
pub use trunkline_codec::Zstd;
pub use trunkline_codec::metadata::Iter as MetadataIter;
pub use trunkline_codec::{
    CompressionError, Compressor, Compressors, Decompressor, MetadataError, ParseCodeError,
    Payload, Rope,
};
