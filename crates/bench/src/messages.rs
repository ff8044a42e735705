//! The two messages of `bench.proto`, and the check of what servers reply.

use prost::Message;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    /// Comes back.
    #[prost(bytes = "vec", tag = "1")]
    pub payload: Vec<u8>,
    /// How often it comes back from a server stream.
    #[prost(uint32, tag = "2")]
    pub replies: u32,
    /// Waits without a thread.
    #[prost(uint32, tag = "3")]
    pub sleep_millis: u32,
    /// Computes without awaiting.
    #[prost(uint32, tag = "4")]
    pub spin_millis: u32,
    /// Blocks its thread.
    #[prost(uint32, tag = "5")]
    pub block_millis: u32,
}

/// What is replied.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Reply {
    /// The request's.
    #[prost(bytes = "vec", tag = "1")]
    pub payload: Vec<u8>,
    /// How many messages the server read; only a client stream must say it.
    #[prost(uint64, tag = "2")]
    pub requests: u64,
}

/// A payload of `len` bytes, none like its neighbour.
pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8).collect()
}

/// A message behind its prefix: PROTOCOL-HTTP2.md, "Length-Prefixed-Message".
pub fn prefixed(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    out.extend_from_slice(&message.encode_to_vec());
    out
}

/// Checks all the DATA of a response: `replies` messages that hold `payload`; the last says that
/// `requests` were read, if that is asked.
///
/// # Errors
///
/// What is wrong with them.
pub fn verify(
    mut data: &[u8],
    payload: &[u8],
    replies: u32,
    requests: Option<u64>,
) -> Result<(), String> {
    let mut count = 0;
    let mut last = Reply::default();
    while !data.is_empty() {
        let &[flag, a, b, c, d, ref rest @ ..] = data else {
            return Err(format!("{} bytes behind the last message", data.len()));
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(message) = rest.get(..len).filter(|_| flag == 0) else {
            return Err(format!("a message that says {len} bytes, flag {flag}"));
        };
        last = Reply::decode(message).map_err(|error| format!("no reply: {error}"))?;
        if last.payload != payload {
            let len = last.payload.len();
            return Err(format!("a reply with another payload, of {len} bytes"));
        }
        count += 1;
        data = &rest[len..];
    }
    if count != replies {
        return Err(format!("{count} replies instead of {replies}"));
    }
    match requests {
        Some(expected) if expected != last.requests => Err(format!(
            "the server says it read {} messages of {expected}",
            last.requests
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_replies_that_were_asked_for_pass() {
        let reply = |payload: &[u8], requests| {
            prefixed(&Reply {
                payload: payload.to_vec(),
                requests,
            })
        };
        let good = reply(b"ab", 3);
        assert_eq!(verify(&good, b"ab", 1, Some(3)), Ok(()));
        assert_eq!(verify(&good, b"ab", 1, None), Ok(()));
        assert_eq!(verify(&[], b"ab", 0, None), Ok(()));
        assert_eq!(verify(&good.repeat(4), b"ab", 4, Some(3)), Ok(()));
        for (data, payload, replies, requests) in [
            (&good[..], &b"ac"[..], 1, None),
            (&good, b"ab", 2, None),
            (&good, b"ab", 1, Some(4)),
            (&good[..good.len() - 1], b"ab", 1, None),
            (&good[..3], b"ab", 1, None),
            (&[&[1], &good[1..]].concat(), b"ab", 1, None),
        ] {
            assert!(
                verify(data, payload, replies, requests).is_err(),
                "{data:?}"
            );
        }
    }
}
