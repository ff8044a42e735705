//! What the guide says of generated code, on what the build script has made.

use std::collections::BTreeSet;

use prost_types::Timestamp;
use shop::customers::v1::Customer;
use shop::v1::order::Payment;
use shop::v1::{Item, Order, Orders, OrdersClient, OrdersServer, Receipt, Size};
use trunkline::{Channel, Request, Result, Server, prost_types};

mod proto {
    include!(concat!(env!("OUT_DIR"), "/shop.rs"));
}

use proto::shop;

/// The same by the macro.
#[allow(dead_code, reason = "it is only compiled here")]
mod orders {
    trunkline::include_proto!("../proto/shop/v1/orders.proto", includes = ["../proto"]);
}

/// One order of each article only.
struct Counter;

impl Orders for Counter {
    async fn place(&self, request: Request<Order>) -> Result<Receipt> {
        let items: BTreeSet<Item> = request.into_inner().items.into_iter().collect();
        let number = items.len() as u64;
        Ok(Receipt { number })
    }
}

fn order() -> Order {
    let item = Item {
        article: "teapot".to_string(),
        count: None,
        size: Size::Large.into(),
    };
    Order {
        note: None,
        priority: 0,
        customer: Some(Customer {
            name: "Zed".to_string(),
            email: None,
        }),
        items: vec![item.clone(), item],
        wanted_by: Some(Timestamp {
            seconds: 1_800_000_000,
            nanos: 0,
        }),
        signature: Some(vec![1, 2, 3]),
        labels: [("colour".to_string(), "blue".to_string())].into(),
        payment: Some(Payment::Invoice("2026-1".to_string())),
    }
}

#[tokio::test]
async fn types_of_several_packages_have_what_the_script_asked_for() -> Result<()> {
    let server = Server::new().add_service(OrdersServer::new(Counter));
    let client = OrdersClient::new(Channel::in_process(server));
    let order = order();
    assert_eq!(order.items[0].count(), 1, "the default of the file");
    assert_eq!(order.items[0].size(), Size::Large);
    assert_eq!(client.place(order).await?.number, 1);
    Ok(())
}
