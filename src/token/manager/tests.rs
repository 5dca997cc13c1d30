//! The state machine, under a paused clock with a scripted source.

use std::time::{Duration, SystemTime};

use tokio::time::{self, Instant};

use super::*;
use crate::token::{
    error::{ErrorCode, FetchError},
    source::{
        Source, SourceConfig,
        scripted::{Scripted, Step},
    },
    status::State,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn token(lifetime: u64) -> Step {
    Step::Token { lifetime: secs(lifetime) }
}

fn fail(status: u16) -> Step {
    Step::Fail(FetchError::Status { status, retry_after: None })
}

mod faults;
mod limits;

/// A manager with one credential, whose wall clock goes with the paused one, with an offset that a test can change.
struct Bench {
    manager: Manager,
    script: Scripted,
    readiness: Readiness,
    metrics: Metrics,
    wall_offset: Arc<std::sync::atomic::AtomicI64>,
    began: Instant,
}

fn bench(steps: impl IntoIterator<Item = Step>) -> Bench {
    bench_with(steps, |supplier| supplier)
}

fn bench_with(steps: impl IntoIterator<Item = Step>, change: impl FnOnce(Supplier) -> Supplier) -> Bench {
    bench_as("client_secret_basic", steps, change)
}

fn bench_as(
    client_auth: &str,
    steps: impl IntoIterator<Item = Step>,
    change: impl FnOnce(Supplier) -> Supplier,
) -> Bench {
    let script = Scripted::new(steps);
    let wall_offset = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let (began, epoch, offset) = (Instant::now(), SystemTime::now(), Arc::clone(&wall_offset));
    let clock = Clock::with_wall(move || {
        let wall = epoch + began.elapsed() + secs(1_000_000);
        let offset = offset.load(std::sync::atomic::Ordering::SeqCst);
        wall - secs(1_000_000) + secs(u64::try_from(offset + 1_000_000).unwrap()) - secs(1_000_000)
    });
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let environment = Environment {
        clock,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        traces: Tracer::default(),
    };
    let config = CredentialConfig {
        source: SourceConfig::ClientCredentials(
            serde_json::from_value(serde_json::json!({
                "client_id": "x", "token_endpoint": "https://idp.example/t", "client_auth": client_auth,
            }))
            .unwrap(),
        ),
        common: Default::default(),
    };
    let supplier = change(Supplier::of(Source::Scripted(script.clone())));
    let entry = entry("orders", &config, supplier, &environment, true).unwrap();
    let credentials = BTreeMap::from([("orders".to_owned(), Arc::new(entry))]);
    let inner = Inner { credentials, ..Inner::default() };
    Bench { manager: Manager(Arc::new(inner)), script, readiness, metrics, wall_offset, began }
}

impl Bench {
    fn credential(&self) -> Credential {
        self.manager.credential("orders").unwrap()
    }

    fn asked(&self) -> Vec<f64> {
        self.script.asked().iter().map(|at| (*at - self.began).as_secs_f64()).collect()
    }

    fn state(&self) -> State {
        self.manager.statuses()[0].state
    }
}

/// Lets so much time go by, in steps small enough for every task to be served in its order.
async fn pass(seconds: u64) {
    let end = Instant::now() + secs(seconds);
    while Instant::now() < end {
        time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_ahead_and_the_readiness_latch_opens_with_the_first() {
    let bench = bench([token(3600)]);
    assert!(!bench.readiness.is_ready());
    assert_eq!(bench.state(), State::Waiting);
    bench.manager.start();
    let first = bench.credential().wait().await.unwrap();
    assert_eq!(first.header(), "Bearer token-1");
    assert!(bench.readiness.is_ready());
    pass(3300).await;
    let asked = bench.asked();
    assert_eq!(asked.len(), 2);
    assert!((3239.0..=3301.0).contains(&asked[1]), "{asked:?}");
    assert_eq!(bench.credential().current().unwrap().generation().0, 2);
}

#[tokio::test(start_paused = true)]
async fn promise_8_a_thousand_first_requests_make_one_token_request() {
    let bench = bench([Step::Slow(secs(2), Box::new(token(60)))]);
    bench.manager.start();
    let credential = bench.credential();
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let credential = credential.clone();
            tokio::spawn(async move { credential.wait().await.map(|current| current.generation().0) })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Ok(1));
    }
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn f1_while_the_provider_is_down_requests_fail_at_once_and_it_heals_within_12_s() {
    let bench = bench([Step::Fail(FetchError::Unreachable)]);
    bench.manager.start();
    pass(60).await;
    let before = Instant::now();
    let unavailable = bench.credential().wait().await.unwrap_err();
    assert!(before.elapsed() < Duration::from_millis(50));
    assert!(unavailable.retry_after >= secs(1) && unavailable.retry_after <= secs(11));
    assert_eq!(bench.manager.statuses()[0].last_error.as_ref().unwrap().reason, "unreachable");
    bench.script.then([token(60)]);
    pass(12).await;
    assert!(bench.credential().current().is_some());
    assert_eq!(bench.manager.statuses()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn f2_a_provider_that_is_down_for_less_than_the_token_has_left_is_not_noticed() {
    let bench = bench([token(60), fail(503), fail(503), token(60)]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    for _ in 0..900 {
        time::sleep(Duration::from_millis(100)).await;
        assert!(bench.credential().current().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn f3_after_the_margin_there_is_no_token_and_at_most_75_requests_in_ten_minutes() {
    let bench = bench([token(60), fail(500)]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    pass(54).await;
    assert!(bench.credential().current().is_none(), "6 s before its end it is not used any more");
    assert_eq!(bench.state(), State::Expired);
    let before = bench.asked().len();
    pass(600).await;
    assert!(bench.asked().len() - before <= 75, "{}", bench.asked().len());
    assert!(bench.credential().wait().await.is_err());
    bench.script.then([token(60)]);
    pass(12).await;
    assert!(bench.credential().current().is_some());
}

#[tokio::test(start_paused = true)]
async fn f4_a_slow_provider_holds_nobody_up_while_a_token_is_valid() {
    let bench = bench([token(60), Step::Slow(secs(30), Box::new(token(60)))]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    for _ in 0..500 {
        time::sleep(Duration::from_millis(100)).await;
        let before = Instant::now();
        assert!(bench.credential().wait().await.is_ok());
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn f5_a_retry_after_of_20_s_is_waited_for() {
    let limited = FetchError::Status { status: 429, retry_after: Some(secs(20)) };
    let bench = bench([token(3600), Step::Fail(limited), token(3600)]);
    bench.manager.start();
    pass(3400).await;
    let asked = bench.asked();
    let gap = asked[2] - asked[1];
    assert!((20.0..=25.1).contains(&gap), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn f7_a_token_that_expired_when_it_came_is_not_used_and_not_asked_for_every_second() {
    let bench = bench([token(0)]);
    bench.manager.start();
    pass(60).await;
    assert!(bench.credential().current().is_none());
    let asked = bench.asked();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 0.89), "{asked:?}");
    assert!(asked.len() <= 12, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn f7_the_shortest_lifetimes_make_at_most_one_request_a_second() {
    let bench = bench([token(1)]);
    bench.manager.start();
    pass(20).await;
    let asked = bench.asked();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 0.999), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn f11_a_thousand_rejections_cause_one_refresh_and_none_for_30_s_when_that_is_refused_too() {
    let bench = bench([token(3600)]);
    bench.manager.start();
    let first = bench.credential().wait().await.unwrap();
    pass(5).await;
    let outcomes: Vec<_> = (0..1000).map(|_| bench.credential().reject(first.generation())).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == crate::token::Rejection::Refreshing).count(), 1);
    let second = bench.credential().wait().await.unwrap();
    assert_eq!(second.generation().0, 2);
    assert_eq!(bench.asked().len(), 2);
    // The new one is refused too.
    for _ in 0..28 {
        bench.credential().reject(second.generation());
        pass(1).await;
    }
    assert_eq!(bench.asked().len(), 2);
    pass(3).await;
    bench.credential().reject(second.generation());
    pass(2).await;
    assert_eq!(bench.asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn promise_12_a_rejection_of_an_older_token_refreshes_nothing() {
    let bench = bench([token(60)]);
    bench.manager.start();
    let first = bench.credential().wait().await.unwrap();
    pass(50).await;
    assert_eq!(bench.credential().reject(first.generation()), crate::token::Rejection::Superseded);
    let asked = bench.asked().len();
    pass(2).await;
    assert_eq!(bench.asked().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_used_again_when_its_replacement_does_not_come() {
    let bench = bench([token(3600), fail(503)]);
    bench.manager.start();
    let first = bench.credential().wait().await.unwrap();
    pass(5).await;
    bench.credential().reject(first.generation());
    assert!(bench.credential().current().is_none(), "it is being replaced");
    assert_eq!(bench.credential().wait().await.unwrap().generation(), first.generation());
}

#[tokio::test(start_paused = true)]
async fn f13_a_replaced_secret_is_tried_within_10_s_even_while_the_client_is_refused() {
    let code = ErrorCode::new("invalid_client").unwrap();
    let refused = Step::Fail(FetchError::OAuth { code, status: 401, retry_after: None });
    let bench = bench([refused]);
    bench.manager.start();
    pass(1200).await;
    let before = bench.asked().len();
    bench.script.then([token(60)]);
    bench.script.replace_secret();
    pass(10).await;
    assert_eq!(bench.asked().len(), before + 1);
    assert!(bench.credential().current().is_some());
}

#[tokio::test(start_paused = true)]
async fn f16_a_clock_step_costs_at_most_one_token_request_and_no_expired_token() {
    for step in [7200, -7200] {
        let bench = bench([token(3600)]);
        bench.manager.start();
        bench.credential().wait().await.unwrap();
        pass(5).await;
        bench.wall_offset.store(step, std::sync::atomic::Ordering::SeqCst);
        // By the wall clock it has expired, or has longer than it was given; the monotonic clock knows better.
        assert_eq!(bench.credential().current().is_some(), step < 0);
        assert!(bench.credential().wait().await.is_ok());
        pass(60).await;
        assert!(bench.asked().len() <= 2, "{step}");
        pass(3600).await;
        assert!(bench.credential().current().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn f16_an_idle_credential_notices_a_forward_step_by_itself() {
    let bench = bench([token(3600)]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    pass(5).await;
    bench.wall_offset.store(7200, std::sync::atomic::Ordering::SeqCst);
    // Nobody asks for the token: a pod that is not ready gets no request.
    assert_eq!(bench.state(), State::Expired);
    pass(10).await;
    assert_eq!((bench.asked().len(), bench.state()), (2, State::Fresh));
    pass(60).await;
    assert_eq!(bench.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn f26_a_refresher_that_panics_is_restarted_within_a_second() {
    let bench = bench([Step::Panic, token(60)]);
    bench.manager.start();
    pass(2).await;
    assert!(bench.credential().current().is_some());
    let asked = bench.asked();
    assert!(asked[1] - asked[0] <= 1.1, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn f27_refreshes_of_a_fleet_are_spread() {
    let mut second = std::collections::BTreeMap::new();
    let fleet: Vec<_> = (0..50).map(|_| bench([token(600)])).collect();
    for bench in &fleet {
        bench.manager.start();
    }
    pass(460).await;
    for bench in &fleet {
        *second.entry(bench.asked()[1] as u64).or_insert(0) += 1;
    }
    assert!(second.values().all(|count| *count <= 15), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn reading_a_token_allocates_nothing() {
    let bench = bench([token(3600)]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    let credential = bench.credential();
    // The wall clock of the bench is a closure that does not allocate either.
    let counted = allocation_counter::measure(|| {
        let current = credential.current().unwrap();
        std::hint::black_box(current.header().clone());
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
