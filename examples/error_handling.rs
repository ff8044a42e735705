//! What a client makes of errors: which are worth another try, which say what to change, and which
//! leave open what has happened. Between client and guest house is a desk, which passes errors on.
//!
//! Run it with `cargo run --example error_handling`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use booking::{BookReply, BookRequest, Booking, BookingClient, BookingServer};
use trunkline::details::{BadRequest, RetryInfo};
use trunkline::{Code, Request, Response, Result, Server, Service, Status};

mod booking {
    trunkline::include_proto!("../proto/booking.proto");
}

/// At most this many times is a call made.
const TRIES: u32 = 3;

struct GuestHouse {
    calls: AtomicU32,
}

impl Booking for GuestHouse {
    async fn book(&self, request: Request<BookRequest>) -> Result<BookReply> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            let pause = RetryInfo::after(Duration::from_millis(20));
            return Err(Status::unavailable("the books are being opened").with_detail(pause));
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

struct Desk {
    house: BookingClient,
}

impl Booking for Desk {
    async fn book(&self, request: Request<BookRequest>) -> Result<BookReply> {
        let reply = self.house.book(request.into_inner()).await;
        // `?` alone would pass on code and message, and keep the details back.
        reply.map(Response::into_inner).map_err(Status::forward)
    }
}

async fn book(client: &BookingClient, nights: u32) -> Result<u32> {
    let guest = "Ida".to_string();
    let request = BookRequest { guest, nights };
    let mut tries = 1;
    loop {
        let timeout = Duration::from_millis(500);
        let status = match client.book(request.clone()).timeout(timeout).await {
            Ok(reply) => return Ok(reply.room),
            Err(status) => status,
        };
        // Nothing was booked. Whoever gave this code may say when to come again.
        if status.code() != Code::UNAVAILABLE || tries == TRIES {
            return Err(status);
        }
        println!("  {status}; once more");
        let asked = status.detail::<RetryInfo>().and_then(|it| it.delay());
        tokio::time::sleep(asked.unwrap_or(Duration::from_millis(100) * tries)).await;
        tries += 1;
    }
}

fn explain(status: &Status) {
    match status.code() {
        Code::INVALID_ARGUMENT => {
            let wrong = status.detail::<BadRequest>().unwrap_or_default();
            for violation in wrong.field_violations {
                println!("  change {}: {}", violation.field, violation.description);
            }
        }
        Code::DEADLINE_EXCEEDED => println!("  no answer in time: it may be booked, or not"),
        Code::UNAVAILABLE => println!("  not now"),
        _ => println!("  {status}"),
    }
}

async fn serve(service: impl Service) -> Result<BookingClient> {
    let server = Server::new().add(service).bind("127.0.0.1:0").await?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());
    BookingClient::connect(&address).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let calls = AtomicU32::new(0);
    let house = serve(BookingServer(GuestHouse { calls })).await?;
    let desk = serve(BookingServer(Desk { house })).await?;
    for nights in [2, 0, 10, 99] {
        println!("{nights} nights:");
        match book(&desk, nights).await {
            Ok(room) => println!("  room {room}"),
            Err(status) => explain(&status),
        }
    }
    Ok(())
}
