//! Orders, by `service.proto` and `common.proto`; the crate of users has files of these names too.

use trunkline::{Request, Result};

trunkline::include_proto!("service.proto");

/// The handlers.
#[derive(Debug)]
pub struct Orders;

impl OrderService for Orders {
    async fn get_order(&self, request: Request<GetOrderRequest>) -> Result<Order> {
        let key = request.into_inner().key;
        Ok(Order {
            key,
            ..Order::default()
        })
    }
}
