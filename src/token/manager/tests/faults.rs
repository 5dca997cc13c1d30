//! Rows of F1 to F7 in the state that the tests above leave out: with a token where they have none, without one where they
//! hold one.

use super::*;

#[tokio::test(start_paused = true)]
async fn f4_without_a_token_callers_wait_for_a_slow_provider_as_long_as_they_may() {
    let bench = bench([Step::Slow(secs(30), Box::new(token(60)))]);
    bench.manager.start();
    let before = Instant::now();
    assert!(bench.credential().wait().await.is_err());
    assert_eq!(before.elapsed(), secs(5), "token_wait");
    pass(60).await;
    assert_eq!(bench.manager.statuses()[0].last_error.as_ref().unwrap().reason, "timeout");
    let asked = bench.asked();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 10.0), "one at a time: {asked:?}");
    bench.script.then([token(60)]);
    pass(22).await;
    assert!(bench.credential().current().is_some(), "10 s until the answer under way is given up, then 12 s");
}

#[tokio::test(start_paused = true)]
async fn f5_without_a_token_a_retry_after_of_20_s_is_waited_for_and_passed_on() {
    let limited = FetchError::Status { status: 429, retry_after: Some(secs(20)) };
    let bench = bench([Step::Fail(limited), token(3600)]);
    bench.manager.start();
    pass(1).await;
    let unavailable = bench.credential().wait().await.unwrap_err();
    assert!((19..=25).contains(&unavailable.retry_after.as_secs()), "{unavailable:?}");
    pass(25).await;
    let asked = bench.asked();
    assert!((20.0..=25.1).contains(&(asked[1] - asked[0])), "{asked:?}");
    assert!(bench.credential().current().is_some());
}

#[tokio::test(start_paused = true)]
async fn f7_with_a_token_an_answer_that_has_expired_takes_nothing_away() {
    let bench = bench([token(60), token(0), token(0), token(60)]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    for _ in 0..1200 {
        time::sleep(Duration::from_millis(100)).await;
        assert!(bench.credential().current().is_some(), "after {:?}", bench.began.elapsed());
    }
    let asked = bench.asked();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 0.89), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn f7_the_token_that_is_held_ends_when_the_provider_says_that_it_has() {
    let bench = bench([token(3600), Step::Again { lifetime: secs(0) }]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    pass(3310).await;
    assert!(bench.credential().current().is_none(), "long before the end that it was given at first");
    let status = &bench.manager.statuses()[0];
    assert_eq!(status.last_error.as_ref().unwrap().reason, "stale_token");
    let shown = String::from_utf8(bench.metrics.render()).unwrap();
    let ends = "attache_token_expiry_timestamp_seconds{credential=\"orders\"} ";
    let ends: f64 = shown.lines().find_map(|line| line.strip_prefix(ends)).unwrap().parse().unwrap();
    let now = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + bench.began.elapsed())
        .as_secs_f64();
    assert!(ends <= now + 1.0, "{ends} {now}");
    assert!(bench.asked().len() <= 15, "{:?}", bench.asked());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_repeats_a_token_until_it_ends_lets_callers_wait_and_none_fail() {
    // How long after the request was sent the provider began to count, and whether it rounds up what is left.
    let ways = [(0, false), (100, false), (900, false), (100, true)];
    for lifetime in [20, 60, 400] {
        for (late, up) in ways {
            let bench = bench([Step::Again { lifetime: secs(lifetime) }]);
            let end = secs(lifetime) + Duration::from_millis(late);
            let (script, began) = (bench.script.clone(), bench.began);
            tokio::spawn(async move {
                loop {
                    let left = end.saturating_sub(began.elapsed()).as_secs_f64();
                    script.then([match left {
                        0.0 => token(lifetime),
                        left => Step::Again {
                            lifetime: Duration::from_secs_f64(if up { left.ceil() } else { left.floor() }),
                        },
                    }]);
                    time::sleep(Duration::from_millis(50)).await;
                }
            });
            bench.manager.start();
            bench.credential().wait().await.unwrap();
            let mut longest = Duration::ZERO;
            while bench.began.elapsed() < end + secs(5) {
                let before = Instant::now();
                let current = bench.credential().wait().await;
                let current = current.unwrap_or_else(|_| panic!("{lifetime} {late}: {:?}", bench.asked()));
                let first = current.generation().0 == 1;
                assert!(!first || bench.began.elapsed() < end, "it has expired");
                longest = longest.max(before.elapsed());
                time::sleep(Duration::from_millis(100)).await;
            }
            let asked = bench.asked();
            assert!(longest < secs(3), "{lifetime} {late}: {longest:?} {asked:?}");
            assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 0.999), "{asked:?}");
            assert!(asked.len() <= 12, "{asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f6_in_either_state_every_kind_of_failure_backs_off_and_heals() {
    let kinds = [
        FetchError::Unreachable,
        FetchError::Tls,
        FetchError::Timeout,
        FetchError::Broken,
        FetchError::TooLarge,
        FetchError::Redirected,
        FetchError::Malformed("it is not a JSON object"),
        FetchError::Metadata("there is none"),
        FetchError::Status { status: 500, retry_after: None },
    ];
    for kind in kinds {
        for held in [false, true] {
            let first = held.then(|| token(3600));
            let bench = bench(first.into_iter().chain([Step::Fail(kind.clone())]));
            bench.manager.start();
            pass(if held { 3290 } else { 120 }).await;
            assert_eq!(bench.credential().current().is_some(), held, "{kind}");
            let asked = bench.asked();
            assert!((4..=20).contains(&(asked.len() - usize::from(held))) || held, "{kind}: {asked:?}");
            bench.script.then([token(3600)]);
            // While a token is held an attempt is made at least once a minute, else every ten seconds.
            pass(if held { 130 } else { 12 }).await;
            assert_eq!(bench.state(), State::Fresh, "{kind} {held}");
        }
    }
}
