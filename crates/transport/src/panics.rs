//! Catches the panics of handlers and of other user code.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use trunkline_codec::Status;

/// A panic that was caught.
pub struct Panic(Box<dyn Any + Send>);

/// Runs user code and catches its panics. A panic ends only one call, and must not unwind through the task of
/// the connection, which has other calls.
///
/// # Errors
///
/// The panic, if there was one. The panic hook has reported it already.
#[inline]
pub fn catch_panic<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    // State that the panic left inconsistent belongs to the call, and is not used again.
    catch_unwind(AssertUnwindSafe(run)).map_err(Panic)
}

/// Drops a value of user code, and ignores its panics: a second panic during unwinding aborts the process.
pub(crate) fn drop_caught<T>(value: T) {
    let _ = catch_panic(|| drop(value));
}

impl Panic {
    /// Returns the text of the panic, or a placeholder if it has none, for a log.
    pub fn text(&self) -> &str {
        match (
            self.0.downcast_ref::<&str>(),
            self.0.downcast_ref::<String>(),
        ) {
            (Some(text), _) => text,
            (None, Some(text)) => text,
            (None, None) => "a panic without text",
        }
    }

    /// Returns the status for the client: INTERNAL, without the text of the panic, which belongs in the
    /// server's log. `what` names the code that panicked, such as `"handler"`.
    pub fn status(&self, what: &str) -> Status {
        Status::internal(format!("the {what} panicked; the server's log says why"))
    }

    /// Continues the panic, without a second report to the panic hook.
    pub fn resume(self) -> ! {
        resume_unwind(self.0)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.text()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_panic_is_for_the_log_and_not_for_the_client() {
        let secret = String::from("secret");
        for panic in [
            catch_panic(|| panic!("secret")),
            catch_panic(|| panic!("{secret}")),
        ] {
            let panic = panic.map(|()| "no panic").expect_err("it panics");
            assert_eq!(panic.text(), "secret");
            let status = panic.status("handler");
            assert_eq!(
                status.message(),
                "the handler panicked; the server's log says why"
            );
        }
        assert_eq!(catch_panic(|| 7).expect("no panic"), 7);
        drop_caught(7);
    }

    #[test]
    fn a_resumed_panic_keeps_its_text() {
        let resumed = catch_panic(|| match catch_panic(|| panic!("the first")) {
            Ok(()) => (),
            Err(panic) => panic.resume(),
        });
        assert_eq!(resumed.expect_err("it panics").text(), "the first");
    }
}
