//! One token for many calls: fetched by one task at a time, and renewed before it expires.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use trunkline_channel::ChannelLimits;
use trunkline_channel::backoff::{Backoff, random};
use trunkline_codec::Status;
use trunkline_transport::catch_panic;

use crate::credentials::token::Token;

/// gRFC A97: a token counts as expired this long before it is, because clocks differ and calls take time.
const EXPIRY_MARGIN: Duration = Duration::from_secs(30);
/// gRFC A97: within this time before a token counts as expired, a call starts to fetch the next one.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// The time limit of one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

type Fetching = Pin<Box<dyn Future<Output = Result<Token, Status>> + Send>>;
/// The result of a fetch, once there is one.
type Fetched = watch::Receiver<Option<Result<Token, Status>>>;

/// A token that calls share.
pub(crate) struct TokenCache(Arc<TokenFetcher>);

struct TokenFetcher {
    fetch: Box<dyn Fn() -> Fetching + Send + Sync>,
    /// The base, maximum and jitter of the pauses after failures.
    limits: ChannelLimits,
    state: Mutex<CacheState>,
}

struct CacheState {
    cached: Option<Cached>,
    /// The last failure, and the end of the pause after it.
    failure: Option<(Status, Instant)>,
    backoff: Backoff,
    fetch: Option<(Fetched, FetchTask)>,
}

struct Cached {
    token: Token,
    /// Before the token expires.
    usable_until: Option<Instant>,
    renew_at: Option<Instant>,
}

struct FetchTask(AbortHandle);

impl Drop for FetchTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The token of a call, or the fetch that it waits for.
enum TokenStep {
    Ready(Result<Token, Status>),
    Wait(Fetched),
}

impl TokenCache {
    pub(crate) fn new<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Token, Status>> + Send + 'static,
    {
        let limits = ChannelLimits::default();
        Self(Arc::new(TokenFetcher {
            fetch: Box::new(move || Box::pin(fetch())),
            state: Mutex::new(CacheState {
                cached: None,
                failure: None,
                backoff: Backoff::new(&limits),
                fetch: None,
            }),
            limits,
        }))
    }

    /// Returns the cached token, or waits for the fetch under way.
    ///
    /// # Errors
    ///
    /// The error of the fetch; also during the pause after it, if the cached token has expired.
    pub(crate) async fn token(&self) -> Result<Token, Status> {
        // The first fetch may end without a result: with the runtime of the call that has started it.
        for _ in 0..2 {
            let mut fetched = match self.step() {
                TokenStep::Ready(result) => return result,
                TokenStep::Wait(fetched) => fetched,
            };
            if let Ok(result) = fetched.wait_for(Option::is_some).await
                && let Some(result) = &*result
            {
                return result.clone();
            }
        }
        Err(Status::unavailable(
            "the runtime that fetched the token has shut down",
        ))
    }

    fn step(&self) -> TokenStep {
        let (mut state, now) = (self.0.lock(), Instant::now());
        let is_fetching = |(fetched, _): &(Fetched, _)| fetched.has_changed().is_ok();
        if !state.fetch.as_ref().is_some_and(is_fetching) && state.wants_fetch(now) {
            state.fetch = Some(self.0.clone().start());
        }
        let CacheState {
            cached,
            failure,
            fetch,
            ..
        } = &*state;
        let usable = cached
            .as_ref()
            .filter(|it| it.usable_until.is_none_or(|at| now < at));
        match (usable, fetch, failure) {
            (Some(cached), ..) => TokenStep::Ready(Ok(cached.token.clone())),
            (None, Some((fetched, _)), _) => TokenStep::Wait(fetched.clone()),
            (None, None, Some((status, _))) => TokenStep::Ready(Err(status.clone())),
            (None, None, None) => {
                TokenStep::Ready(Err(Status::internal("the token was not fetched")))
            }
        }
    }
}

impl CacheState {
    fn wants_fetch(&self, now: Instant) -> bool {
        let is_due = match &self.cached {
            None => true,
            Some(cached) => cached.renew_at.is_some_and(|at| at <= now),
        };
        is_due && self.failure.as_ref().is_none_or(|(_, until)| *until <= now)
    }
}

impl TokenFetcher {
    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a fetch. Its task does not keep the cache, and ends with it.
    fn start(self: Arc<Self>) -> (Fetched, FetchTask) {
        let (sender, fetched) = watch::channel(None);
        let shared = Arc::downgrade(&self);
        let task = tokio::spawn(async move {
            let result = Self::fetch(&shared).await;
            if let Some(shared) = shared.upgrade() {
                shared.finish(&result);
            }
            sender.send_replace(Some(result));
        });
        (fetched, FetchTask(task.abort_handle()))
    }

    async fn fetch(shared: &Weak<Self>) -> Result<Token, Status> {
        let panicked = |text: &str| {
            tracing::error!(target: "trunkline::credentials", panic = text, "the fetch of a token panicked");
            Err(Status::internal("the fetch of a token panicked"))
        };
        let Some(this) = shared.upgrade() else {
            return Err(Status::cancelled("the credentials were dropped"));
        };
        let fetching = catch_panic(|| (this.fetch)());
        drop(this);
        let mut fetching = match fetching {
            Ok(fetching) => pin!(fetching),
            Err(panic) => return panicked(panic.text()),
        };
        let fetching = poll_fn(|cx| {
            let poll = catch_panic(|| fetching.as_mut().poll(cx));
            poll.unwrap_or_else(|panic| Poll::Ready(panicked(panic.text())))
        });
        tokio::time::timeout(FETCH_TIMEOUT, fetching)
            .await
            .unwrap_or_else(|_| {
                Err(Status::unavailable(format!(
                    "no token within {FETCH_TIMEOUT:?}; the server that issues tokens may be slow"
                )))
            })
    }

    /// Keeps the result of a fetch.
    fn finish(&self, result: &Result<Token, Status>) {
        let (mut state, now) = (self.lock(), Instant::now());
        state.fetch = None;
        match result {
            Ok(token) => {
                state.cached = Some(Cached::new(token.clone(), now));
                state.failure = None;
                state.backoff = Backoff::new(&self.limits);
            }
            Err(status) => {
                let pause = state.backoff.pause(&self.limits, random());
                tracing::debug!(
                    target: "trunkline::credentials",
                    error = status.message(),
                    pause_ms = pause.as_millis(),
                    "no token"
                );
                state.failure = now.checked_add(pause).map(|until| (status.clone(), until));
            }
        }
    }
}

impl Cached {
    fn new(token: Token, now: Instant) -> Self {
        let Some(expires) = token.expires() else {
            return Self {
                token,
                usable_until: None,
                renew_at: None,
            };
        };
        // gRFC A97 has fixed times. With those, each call would fetch a token that is only valid for a minute.
        let left = expires.saturating_duration_since(now);
        let usable = left.saturating_sub(EXPIRY_MARGIN.min(left / 2));
        let renewed_after = usable.saturating_sub(RENEWAL_INTERVAL.min(usable / 2));
        Self {
            token,
            usable_until: Some(now + usable),
            renew_at: Some(now + renewed_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::sleep;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns a cache whose tokens are numbered and valid for `lifetime`, and the number of fetches. Each takes 1 s.
    fn numbered(lifetime: Duration) -> (Arc<TokenCache>, Arc<AtomicU64>) {
        let fetches = Arc::new(AtomicU64::new(0));
        let count = fetches.clone();
        let cache = TokenCache::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                sleep(seconds(1)).await;
                Ok(Token::new(&number.to_string())?.expires_in(lifetime))
            }
        });
        (Arc::new(cache), fetches)
    }

    async fn token(cache: &TokenCache) -> Result<String, Status> {
        let metadata = cache.token().await?.to_metadata();
        Ok(metadata.get("authorization").unwrap_or_default().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn calls_share_one_fetch_and_its_token() {
        let (cache, fetches) = numbered(seconds(3600));
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { token(&cache).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.expect("no panic").expect("a token"), "Bearer 1");
        }
        assert_eq!(token(&cache).await.expect("a token"), "Bearer 1");
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_the_last_minute_starts_the_renewal_and_does_not_wait_for_it() {
        let (cache, fetches) = numbered(seconds(3600));
        token(&cache).await.expect("a token");
        sleep(seconds(3600 - 30 - 60 - 1)).await;
        assert_eq!(token(&cache).await.expect("a token"), "Bearer 1");
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        sleep(seconds(2)).await;
        let before = Instant::now();
        assert_eq!(token(&cache).await.expect("a token"), "Bearer 1");
        assert_eq!(before.elapsed(), Duration::ZERO);
        tokio::task::yield_now().await;
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
        sleep(seconds(2)).await;
        assert_eq!(token(&cache).await.expect("a token"), "Bearer 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_not_used_in_its_last_half_minute() {
        let (cache, fetches) = numbered(seconds(3600));
        token(&cache).await.expect("a token");
        sleep(seconds(3600 - 30)).await;
        let before = Instant::now();
        assert_eq!(token(&cache).await.expect("a token"), "Bearer 2");
        assert_eq!(before.elapsed(), seconds(1));
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_with_a_short_life_is_not_fetched_for_each_call() {
        let (cache, fetches) = numbered(seconds(20));
        for _ in 0..40 {
            token(&cache).await.expect("a token");
            sleep(Duration::from_millis(500)).await;
        }
        let fetches = fetches.load(Ordering::Relaxed);
        assert!((2..=5).contains(&fetches), "{fetches} fetches in 20 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_without_an_expiry_is_kept() {
        let cache = TokenCache::new(|| async { Token::new("a") });
        token(&cache).await.expect("a token");
        sleep(seconds(1 << 30)).await;
        let before = Instant::now();
        token(&cache).await.expect("a token");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    /// Returns a cache that fails until `fetch_ok` fetches have failed.
    fn failing(failures: u64) -> (TokenCache, Arc<AtomicU64>) {
        let fetches = Arc::new(AtomicU64::new(0));
        let count = fetches.clone();
        let cache = TokenCache::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            std::future::ready(match number > failures {
                true => Token::new("a"),
                false => Err(Status::unavailable(format!("failure {number}"))),
            })
        });
        (cache, fetches)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_the_pause_after_a_failure_fail_with_it() {
        let (cache, fetches) = failing(2);
        for _ in 0..3 {
            let status = token(&cache).await.expect_err("the first fetch fails");
            assert_eq!(status.message(), "failure 1");
        }
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        // The first pause is 1 s, the second 1.6 s, each with a jitter of 20 %.
        sleep(Duration::from_millis(1_201)).await;
        assert_eq!(
            token(&cache).await.expect_err("the second fails").message(),
            "failure 2"
        );
        sleep(Duration::from_millis(1_201)).await;
        assert_eq!(
            token(&cache)
                .await
                .expect_err("the pause is longer")
                .message(),
            "failure 2"
        );
        sleep(Duration::from_millis(800)).await;
        token(&cache).await.expect("the third fetch succeeds");
        assert_eq!(fetches.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_panics_or_hangs_fails_its_calls_and_not_later_ones() {
        let count = AtomicU64::new(0);
        let cache = TokenCache::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 => panic!("in the fetch"),
                    1 => std::future::pending().await,
                    _ => Token::new("a"),
                }
            }
        });
        let status = token(&cache).await.expect_err("a panic");
        assert_eq!(status.message(), "the fetch of a token panicked");
        sleep(seconds(2)).await;
        let before = Instant::now();
        let status = token(&cache).await.expect_err("a fetch that hangs");
        assert_eq!(before.elapsed(), FETCH_TIMEOUT);
        assert!(
            status.message().starts_with("no token within 20s"),
            "{status}"
        );
        sleep(seconds(2)).await;
        token(&cache).await.expect("the third fetch succeeds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_gives_up_leaves_the_fetch_to_the_others() {
        let (cache, fetches) = numbered(seconds(3600));
        let first = tokio::time::timeout(Duration::from_millis(500), token(&cache));
        first.await.expect_err("the fetch takes longer");
        assert_eq!(token(&cache).await.expect("a token"), "Bearer 1");
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_cache_drops_the_fetch() {
        let (alive, dropped) = tokio::sync::oneshot::channel::<()>();
        let alive = Mutex::new(Some(alive));
        let cache = TokenCache::new(move || {
            let alive = alive.lock().expect("no panic").take();
            async move {
                std::future::pending::<()>().await;
                drop(alive);
                Token::new("a")
            }
        });
        let call = tokio::time::timeout(seconds(1), token(&cache));
        call.await.expect_err("the fetch never ends");
        drop(cache);
        dropped.await.expect_err("the fetch is gone");
    }
}
