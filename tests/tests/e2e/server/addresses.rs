//! The addresses on which a server listens: of several types, and several at once.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::sync::oneshot;
use trunkline::server::ListenAddresses;
use trunkline::{Address, BoundServer, Channel, Client, Code, Raw, Server};
use trunkline_tests::fixture::{Echo, UNARY, raw, within};

async fn echo(address: &Address) -> trunkline::Result<Raw> {
    let client = Client::new(Channel::connect(&address.to_string()).await?);
    let response = client.unary::<Raw, Raw>(UNARY, raw("a")).await?;
    Ok(response.into_inner())
}

async fn bind(server: Server, addresses: impl Into<ListenAddresses>) -> BoundServer {
    let bound = server.add_service(Echo).bind(addresses).await;
    bound.expect("the addresses are free")
}

#[tokio::test]
async fn a_server_listens_on_what_is_an_address() {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    for bound in [
        bind(Server::new(), "127.0.0.1:0").await,
        bind(Server::new(), String::from("127.0.0.1:0")).await,
        bind(Server::new(), &String::from("127.0.0.1:0")).await,
        bind(Server::new(), local).await,
        bind(Server::new(), (Ipv4Addr::LOCALHOST, 0)).await,
        bind(Server::new(), Address::Tcp(local)).await,
        bind(Server::new(), [local]).await,
        bind(Server::new(), vec!["127.0.0.1:0"]).await,
        bind(Server::new(), &["127.0.0.1:0"][..]).await,
    ] {
        let address = bound.local_addr();
        assert_eq!(bound.local_addrs(), std::slice::from_ref(&address));
        let serving = tokio::spawn(bound.serve());
        assert_eq!(within("a call", echo(&address)).await.unwrap(), raw("a"));
        serving.abort();
    }
}

#[tokio::test]
async fn a_server_serves_on_several_addresses_until_it_drains() {
    for server in [Server::new(), Server::new().threads(2)] {
        let bound = bind(server, ["127.0.0.1:0", "127.0.0.1:0"]).await;
        let addresses = bound.local_addrs();
        assert_eq!(addresses.len(), 2);
        assert_ne!(addresses[0], addresses[1]);
        assert_eq!(bound.local_addr(), addresses[0]);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(bound.serve_until(async move {
            let _ = stopped.await;
        }));
        for address in &addresses {
            assert_eq!(within("a call", echo(address)).await.unwrap(), raw("a"));
        }
        stop.send(()).unwrap();
        let served = within("the end of the server", serving).await;
        served.unwrap().unwrap();
        for address in &addresses {
            let status = within("a refusal", echo(address)).await.unwrap_err();
            assert_eq!(status.code(), Code::UNAVAILABLE);
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_is_named() {
    let none = Server::new().bind(Vec::<String>::new()).await.unwrap_err();
    assert_eq!(none.code(), Code::INVALID_ARGUMENT);
    assert!(none.message().contains("the list of addresses is empty"));
    let memory = Server::new().bind(Address::InMemory).await.unwrap_err();
    assert_eq!(memory.code(), Code::INVALID_ARGUMENT);
    assert!(memory.message().contains("in-memory"), "{memory}");
}
