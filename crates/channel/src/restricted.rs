//! The codes that a client may make (gRFC A54).

use trunkline_codec::{Code, Status};

/// Returns the status of a call that fails with a status of a resolver, a picker or credentials. gRFC A54: codes by
/// which applications describe their own failures become INTERNAL, with the original in the message.
pub fn restricted(status: &Status) -> Status {
    match status.code() {
        Code::INVALID_ARGUMENT
        | Code::NOT_FOUND
        | Code::ALREADY_EXISTS
        | Code::FAILED_PRECONDITION
        | Code::ABORTED
        | Code::OUT_OF_RANGE
        | Code::DATA_LOSS => Status::internal(format!(
            "the channel produced {}, which is reserved for applications: {}",
            status.code(),
            status.message()
        )),
        _ => status.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_applications_become_internal() {
        for code in Code::ALL.into_iter().skip(1) {
            let number = i32::from(code);
            let is_kept = !matches!(number, 3 | 5 | 6 | 9 | 10 | 11 | 15);
            let status = restricted(&Status::new(code, "why"));
            let expected = if is_kept { code } else { Code::INTERNAL };
            assert_eq!(status.code(), expected);
            assert!(status.message().ends_with("why"), "{status}");
        }
    }
}
