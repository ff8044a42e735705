//! Error handling: a client decides by the code whether to retry, to correct its request or to give up.
//! Between the client and the guest house is a desk, which forwards errors.
//!
//! Run it with `cargo run --example error_handling`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use booking::{BookReply, BookRequest, Booking, BookingClient, BookingServer};
use trunkline::details::{BadRequest, RetryInfo};
use trunkline::{Code, Request, Response, Result, Server, Service, Status};

mod booking {
    trunkline::include_proto!("../proto/booking.proto");
}

struct GuestHouse(AtomicBool);

impl Booking for GuestHouse {
    async fn book(&self, request: Request<BookRequest>) -> Result<BookReply> {
        if !self.0.swap(true, Ordering::Relaxed) {
            let pause = RetryInfo::after(Duration::from_millis(20));
            return Err(Status::unavailable("we are about to open").with_detail(pause));
        }
        match request.nights {
            0 => {
                let wrong = BadRequest::default().with_violation("nights", "choose 1 to 14 nights");
                Err(Status::invalid_argument("the booking cannot be read").with_detail(wrong))
            }
            1..=7 => Ok(BookReply { room: 12 }),
            8..=14 => Err(Status::failed_precondition("there is no room for so long")),
            _ => std::future::pending().await,
        }
    }
}

struct Desk(BookingClient);

impl Booking for Desk {
    async fn book(&self, request: Request<BookRequest>) -> Result<BookReply> {
        let response = self.0.book(request.into_inner()).await;
        // `?` alone would pass on the code and the message, but not the details.
        response.map(Response::into_inner).map_err(Status::forward)
    }
}

async fn book(client: &BookingClient, request: BookRequest) -> Result<u32> {
    let timeout = Duration::from_millis(500);
    let first = client.book(request.clone()).timeout(timeout).await;
    let Err(status) = first else {
        return first.map(|response| response.room);
    };
    // A call whose connection is lost is UNAVAILABLE, too, and may have booked a room. In this case the
    // server itself sent the status, with the time after which to retry.
    let pause = status.detail::<RetryInfo>().and_then(|info| info.delay());
    let (Code::UNAVAILABLE, Some(pause)) = (status.code(), pause) else {
        return Err(status);
    };
    println!("  {status}; retrying");
    tokio::time::sleep(pause).await;
    Ok(client.book(request).timeout(timeout).await?.room)
}

fn explain(status: &Status) {
    match status.code() {
        Code::INVALID_ARGUMENT => {
            let wrong = status.detail::<BadRequest>().unwrap_or_default();
            for violation in wrong.field_violations {
                println!("  change {}: {}", violation.field, violation.description);
            }
        }
        Code::DEADLINE_EXCEEDED => println!("  no response in time: the room may be booked or not"),
        _ => println!("  {status}"),
    }
}

async fn serve(service: impl Service) -> Result<BookingClient> {
    let server = Server::new().add_service(service);
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    BookingClient::connect(&address).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let house = serve(BookingServer::new(GuestHouse(AtomicBool::new(false)))).await?;
    let desk = serve(BookingServer::new(Desk(house))).await?;
    for nights in [2, 0, 10, 99] {
        println!("{nights} nights:");
        let guest = "Ida".to_string();
        match book(&desk, BookRequest { guest, nights }).await {
            Ok(room) => println!("  room {room}"),
            Err(status) => explain(&status),
        }
    }
    Ok(())
}
