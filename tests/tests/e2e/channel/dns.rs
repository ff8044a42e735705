//! Names in DNS, with a DNS server that changes its mind.

use std::future::IntoFuture;
use std::net::IpAddr;
use std::time::Duration;

use trunkline::channel::HickoryLookup;
use trunkline::{Channel, ChannelBuilder, Client, Code, Raw, Result};
use trunkline_testkit::{DnsRecords, DnsServer, MemoryNet, Probe, within};

const NAME: &str = "svc.test";
const CONFIG_NAME: &str = "_grpc_config.svc.test";
const SOON: Duration = Duration::from_millis(20);

struct Rig {
    dns: DnsServer,
    net: MemoryNet,
    a: Probe,
    b: Probe,
}

async fn rig() -> Rig {
    let rig = Rig {
        dns: DnsServer::bind().await,
        net: MemoryNet::default(),
        a: Probe::new(),
        b: Probe::new(),
    };
    rig.net.serve("10.0.0.1:1", &rig.a);
    rig.net.serve("10.0.0.2:1", &rig.b);
    rig
}

impl Rig {
    fn channel(&self) -> ChannelBuilder {
        Channel::to(format!("dns://{}/{NAME}:1", self.dns.address()))
            .connector(self.net.connector())
            .with_limits(|limits| limits.connect_backoff_base = SOON)
    }

    /// Waits until the server was asked again, from the beginning to the end.
    async fn asked_again(&self, name: &str) {
        let before = self.dns.asked(name);
        within("questions", async {
            while self.dns.asked(name) < before + 4 {
                tokio::time::sleep(SOON).await;
            }
        })
        .await;
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts
        .iter()
        .map(|it| it.parse().expect("an address"))
        .collect()
}

async fn echo(client: &Client) -> Result<()> {
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    within("a call", call.into_future()).await.map(drop)
}

/// Makes calls until the probe is called.
async fn until_called(client: &Client, probe: &Probe) {
    let before = probe.counts().called;
    within("a call to the server", async {
        while probe.counts().called == before {
            echo(client).await.expect("a server is there");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn addresses_of_a_name_come_and_go_while_all_is_well() -> Result<()> {
    let rig = rig().await;
    rig.dns.set_addresses(NAME, &ips(&["10.0.0.1"]));
    let channel = rig.channel().round_robin().resolve_every(SOON);
    let client = Client::new(channel.connect_lazy()?);
    echo(&client).await?;
    rig.dns.set_addresses(NAME, &ips(&["10.0.0.1", "10.0.0.2"]));
    until_called(&client, &rig.b).await;
    until_called(&client, &rig.a).await;
    // What fails, or is empty, leaves the addresses in use.
    rig.dns.fail(NAME);
    rig.asked_again(NAME).await;
    until_called(&client, &rig.a).await;
    rig.dns.set_addresses(NAME, &[]);
    rig.asked_again(NAME).await;
    until_called(&client, &rig.a).await;
    until_called(&client, &rig.b).await;
    rig.dns.set_addresses(NAME, &ips(&["10.0.0.2"]));
    within("a list without A", async {
        loop {
            let before = rig.a.counts().called;
            for _ in 0..4 {
                echo(&client).await.expect("B is there");
            }
            if rig.a.counts().called == before {
                return;
            }
            tokio::time::sleep(SOON).await;
        }
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn without_an_interval_names_are_looked_up_once_while_all_is_well() -> Result<()> {
    let rig = rig().await;
    rig.dns.set_addresses(NAME, &ips(&["10.0.0.1"]));
    let client = Client::new(rig.channel().round_robin().connect_lazy()?);
    echo(&client).await?;
    let asked = rig.dns.asked(NAME);
    tokio::time::sleep(SOON * 5).await;
    echo(&client).await?;
    assert_eq!(rig.dns.asked(NAME), asked);
    Ok(())
}

#[tokio::test]
async fn calls_to_a_name_that_does_not_resolve_name_it_until_it_does() -> Result<()> {
    let rig = rig().await;
    let client = Client::new(rig.channel().connect_lazy()?);
    for records in [None, Some(DnsRecords::default())] {
        match records {
            None => rig.dns.fail(NAME),
            Some(records) => rig.dns.set(NAME, records),
        }
        let status = echo(&client).await.expect_err("no addresses");
        assert_eq!(status.code(), Code::UNAVAILABLE);
        assert!(status.message().contains(NAME), "{status}");
    }
    rig.dns.set_addresses(NAME, &ips(&["10.0.0.1"]));
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    within("a call", call.wait_for_ready().into_future()).await?;
    Ok(())
}

#[tokio::test]
async fn the_service_config_in_dns_is_chosen_by_language_percentage_and_host_name() -> Result<()> {
    let choice = |criteria: &str, policy: &str| {
        format!(r#"{{{criteria} "serviceConfig": {{"loadBalancingPolicy": "{policy}"}}}}"#)
    };
    let choices = [
        choice(r#""clientLanguage": ["go"],"#, "pick_first"),
        choice(r#""percentage": 0,"#, "pick_first"),
        choice(r#""clientHostname": ["not-this-machine"],"#, "pick_first"),
        choice(
            r#""clientLanguage": ["RUST"], "percentage": 100,"#,
            "round_robin",
        ),
    ];
    let text = format!("grpc_config=[{}]", choices.join(","));
    for finds in [true, false] {
        let rig = rig().await;
        rig.dns.set_addresses(NAME, &ips(&["10.0.0.1", "10.0.0.2"]));
        rig.dns.set_texts(CONFIG_NAME, &["v=spf1 -all", &text]);
        let client = Client::new(rig.channel().dns_service_config(finds).connect_lazy()?);
        for _ in 0..2 {
            echo(&client).await?;
        }
        match finds {
            true => {
                until_called(&client, &rig.a).await;
                until_called(&client, &rig.b).await;
            }
            false => {
                assert_eq!(rig.a.counts().called + rig.b.counts().called, 2);
                assert!(rig.a.counts().called == 0 || rig.b.counts().called == 0);
                assert_eq!(rig.dns.asked(CONFIG_NAME), 0);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_service_config_that_dns_does_not_return_fails_no_call_and_an_invalid_one_does()
-> Result<()> {
    let rig = rig().await;
    rig.dns.set_addresses(NAME, &ips(&["10.0.0.1"]));
    // None, and SERVFAIL.
    for fails in [false, true] {
        if fails {
            rig.dns.fail(CONFIG_NAME);
        }
        echo(&Client::new(
            rig.channel().dns_service_config(true).connect_lazy()?,
        ))
        .await?;
    }
    rig.dns.set_texts(CONFIG_NAME, &["grpc_config=[{}]"]);
    let invalid = Client::new(rig.channel().dns_service_config(true).connect_lazy()?);
    let status = echo(&invalid).await.expect_err("the config is invalid");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert!(
        status
            .message()
            .contains("serviceConfig: the field is missing"),
        "{status}"
    );
    // It is looked up again.
    rig.dns.set_texts(CONFIG_NAME, &["grpc_config=[]"]);
    let call = invalid.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    within("a call", call.wait_for_ready().into_future()).await?;
    Ok(())
}

#[tokio::test]
async fn a_list_of_targets_has_no_service_config_in_dns() -> Result<()> {
    let channel = Channel::to(["a:1", "b:1"]).lookup(HickoryLookup::new()?);
    let status = channel
        .dns_service_config(true)
        .connect_lazy()
        .expect_err("two targets");
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
    assert!(status.message().contains("name one target"), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_text_that_only_a_connector_knows_reaches_it() -> Result<()> {
    let rig = rig().await;
    let connect = rig.net.connector();
    let channel = Channel::to("passthrough:///the%20first").connector(move |address| {
        let text = address.to_string();
        assert_eq!(text, "passthrough:///the%20first");
        connect(([10, 0, 0, 1], 1).into())
    });
    echo(&Client::new(channel.connect_lazy()?)).await?;
    let status = Channel::to("passthrough:///x")
        .connect_lazy()
        .expect_err("no connector");
    assert!(
        status.message().contains("set ChannelBuilder::connector"),
        "{status}"
    );
    Ok(())
}
