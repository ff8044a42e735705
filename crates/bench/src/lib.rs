//! What the runner and `counted` share: HTTP/2 frames with their header blocks and the messages of
//! `bench.proto`, both by hand, and the name of the machine.
//!
//! Does not know: any gRPC framework, and no HTTP/2 library.

pub mod frames;
pub mod machine;
pub mod messages;
