//! The encoding of a response's single message.

use crate::call::handling::Outcome;
use crate::call::message::{Message, frame_of, record_sent};
use crate::call::message_hooks::hooked_frame;
use crate::call::response_handle::ResponseHandle;
use crate::observe::MessageSize;

// Way of a unary call, server 12: encodes the response after its prefix, in pieces if it is large.
/// Encodes the message with its prefix, and compresses it if the response uses compression.
#[inline]
pub(crate) fn one_frame<R: Message>(
    message: &R,
    response: &ResponseHandle,
    max_size: usize,
) -> Outcome {
    let len = message.encoded_len();
    let compressor = response.compressor(len);
    let frame = match response.message_hooks() {
        None => frame_of(message, len, compressor, max_size)?,
        hooks => hooked_frame(hooks, message, len, compressor, max_size)?,
    };
    if let Some(recorder) = response.recorder() {
        record_sent(recorder, message, MessageSize::of_frame(len, &frame));
    }
    Ok(Some(frame))
}
