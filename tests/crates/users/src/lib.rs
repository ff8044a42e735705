//! Users, by `service.proto` and `common.proto`; the crate of orders has files of these names too.

use trunkline::{Request, Result};

trunkline::include_proto!("service.proto");

/// The handlers.
#[derive(Debug)]
pub struct Users;

impl UserService for Users {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<User> {
        Ok(User {
            id: Some(request.into_inner().id.unwrap_or_default()),
            name: "Zed".to_owned(),
            ..User::default()
        })
    }
}
