//! Limits: a quota, a provider that asks to wait, a secret that is being written, and what is promised of a valid token.

use super::*;

#[tokio::test(start_paused = true)]
async fn promise_9_while_a_token_is_valid_nothing_waits_for_the_provider_whatever_it_does() {
    let faults = [
        fail(503),
        Step::Slow(secs(30), Box::new(token(60))),
        Step::Fail(FetchError::Broken),
        Step::Panic,
        Step::Fail(FetchError::Quota),
    ];
    let bench = bench(std::iter::once(token(600)).chain(faults));
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    for _ in 0..5690 {
        time::sleep(Duration::from_millis(100)).await;
        let before = Instant::now();
        assert!(bench.credential().wait().await.is_ok(), "after {:?}", bench.began.elapsed());
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert!(bench.asked().len() > 5);
}

#[tokio::test(start_paused = true)]
async fn promise_10_a_token_is_replaced_before_its_margin_and_never_used_in_it() {
    for lifetime in [2, 5, 14, 60, 600, 3600] {
        let bench = bench([token(lifetime)]);
        bench.manager.start();
        bench.credential().wait().await.unwrap();
        let step = secs(lifetime) / 50;
        for _ in 0..200 {
            time::sleep(step).await;
            let current = bench.credential().current().expect("a token that is refreshed in time never ends");
            // The script numbers tokens as it numbers the requests for them.
            let asked = bench.asked()[usize::try_from(current.generation().0).unwrap() - 1];
            let age = bench.began.elapsed().as_secs_f64() - asked;
            let margin = crate::token::schedule::margin(secs(lifetime)).as_secs_f64();
            assert!(age < lifetime as f64 - margin, "{lifetime}: {age}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_hour_sees_more_token_requests_than_the_quota_and_they_are_spread() {
    let bench = bench_with([fail(500)], |supplier| supplier.limited(6));
    bench.manager.start();
    pass(4 * 3600).await;
    let asked = bench.asked();
    for from in &asked {
        let within = asked.iter().filter(|at| (*from..from + 3600.0).contains(*at)).count();
        assert!(within <= 6, "{asked:?}");
    }
    assert!(asked.len() >= 20, "what the quota allows is used: {asked:?}");
    let spread = asked.windows(2).skip(2).all(|pair| pair[1] - pair[0] >= 599.0);
    assert!(spread, "half of it is kept for the rest of the hour, also without a token: {asked:?}");
    // When the provider comes back there is something left for it.
    bench.script.then([token(3600)]);
    pass(700).await;
    assert!(bench.credential().current().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_secret_cuts_a_retry_after_short_once() {
    let limited = Step::Fail(FetchError::Status { status: 429, retry_after: Some(secs(600)) });
    let bench = bench([limited]);
    bench.manager.start();
    pass(20).await;
    assert_eq!(bench.asked().len(), 1);
    bench.script.replace_secret();
    pass(10).await;
    assert_eq!(bench.asked().len(), 2, "the old secret may have been what it complained of");
    for _ in 0..5 {
        bench.script.replace_secret();
        pass(10).await;
    }
    assert_eq!(bench.asked().len(), 2, "it has said so again");
    bench.script.then([token(60)]);
    pass(600).await;
    assert!(bench.credential().current().is_some());
    let before = bench.asked().len();
    bench.script.replace_secret();
    pass(10).await;
    assert!(bench.asked().len() > before, "all is well again");
}

#[tokio::test(start_paused = true)]
async fn f13_a_secret_that_is_being_written_is_tried_once_it_stays_the_same() {
    let bench = bench([token(3600)]);
    bench.manager.start();
    pass(1).await;
    bench.script.write_secret(3);
    pass(10).await;
    let asked = bench.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    // The first look that finds it is at 5 s; each further one a quarter of a second later.
    assert!((5.7..=6.0).contains(&asked[1]), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn an_assertion_that_is_written_anew_all_the_time_causes_no_token_request_unless_the_last_one_failed() {
    let steps = [token(3600), fail(503), token(3600)];
    let bench = bench_as("client_assertion", steps, |supplier| supplier);
    bench.manager.start();
    for _ in 0..20 {
        pass(150).await;
        bench.script.replace_secret();
    }
    assert_eq!(bench.asked().len(), 1, "{:?}", bench.asked());
    // The planned request fails, and its back-off has come to a minute.
    bench.script.then([fail(401)]);
    pass(500).await;
    let before = bench.asked().len();
    assert!(before > 4, "{:?}", bench.asked());
    bench.script.then([token(3600)]);
    bench.script.replace_secret();
    pass(8).await;
    assert_eq!((bench.asked().len(), bench.state()), (before + 1, State::Fresh));
}

/// Lets so much time go by while a look hangs: the paused clock, which waits for threads, is pushed.
async fn push(seconds: u64) {
    for _ in 0..seconds * 10 {
        time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
}

/// Lets a look hang for so long.
async fn hang(bench: &Bench, seconds: u64) {
    let hung = bench.script.clone();
    let (held, let_go) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let holder = std::thread::spawn(move || {
        let guard = hung.hang();
        held.0.send(()).unwrap();
        let_go.1.recv().unwrap();
        drop(guard);
    });
    held.1.recv().unwrap();
    push(seconds).await;
    let_go.0.send(()).unwrap();
    holder.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn f13_what_a_slow_look_finds_is_used_once() {
    let bench = bench([token(3600)]);
    bench.manager.start();
    bench.credential().wait().await.unwrap();
    bench.script.replace_secret();
    // From the look at 5 s, which is given up at 7 s.
    hang(&bench, 9).await;
    assert_eq!(bench.asked().len(), 1);
    pass(20).await;
    assert_eq!(bench.asked().len(), 2, "{:?}", bench.asked());
}

#[tokio::test(start_paused = true)]
async fn f13_an_attempt_that_waited_for_a_slow_look_uses_what_it_found() {
    let bench = bench([token(3600)]);
    bench.script.replace_secret();
    bench.manager.start();
    hang(&bench, 3).await;
    assert!(bench.asked().is_empty());
    pass(20).await;
    assert_eq!(bench.asked().len(), 1, "not again for the same secret: {:?}", bench.asked());
}

// In real time: a paused clock waits for threads.
#[tokio::test]
async fn files_that_do_not_answer_hold_up_their_own_credential_only() {
    let (dead, well) = (bench([token(3600)]), bench([token(2)]));
    let hung = dead.script.clone();
    let (held, let_go) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let holder = std::thread::spawn(move || {
        let guard = hung.hang();
        held.0.send(()).unwrap();
        let_go.1.recv().unwrap();
        drop(guard);
    });
    held.1.recv().unwrap();
    dead.manager.start();
    well.manager.start();
    while dead.manager.statuses()[0].last_error.as_ref().is_none_or(|error| error.reason != "blocked") {
        assert!(well.credential().wait().await.is_ok());
        tokio::task::yield_now().await;
    }
    assert!(well.asked().len() >= 3, "it was refreshed all the while: {:?}", well.asked());
    assert!(dead.asked().is_empty());
    let_go.0.send(()).unwrap();
    holder.join().unwrap();
    while dead.credential().current().is_none() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn only_sections_that_are_the_same_share_a_credential() {
    let environment = Environment {
        clock: Clock::default(),
        readiness: Readiness::new(),
        metrics: Metrics::new(),
        traces: Tracer::default(),
    };
    let config = |scope: &str| {
        let json = format!(
            "{{\"type\":\"client_credentials\",\"client_id\":\"x\",\"client_auth\":\"none\",\
             \"token_endpoint\":\"https://idp.example/t\",\"scope\":\"{scope}\"}}"
        );
        serde_json::from_str::<CredentialConfig>(&json).unwrap()
    };
    let names = |scopes: [(&str, &str); 3]| {
        scopes.into_iter().map(|(name, scope)| (name.to_owned(), config(scope))).collect::<BTreeMap<_, _>>()
    };
    let first = Manager::build(&names([("a", "1"), ("b", "1"), ("c", "2")]), &environment).unwrap();
    let same =
        |manager: &Manager, one: &str, other: &Arc<Entry>| Arc::ptr_eq(&manager.0.credentials[one], other);
    assert!(same(&first, "a", &first.0.credentials["b"]));
    assert!(!same(&first, "a", &first.0.credentials["c"]));
    // A name that is gone leaves its token to those that ask for the same.
    let second =
        Manager::build_after(Some(&first), &names([("b", "1"), ("d", "2"), ("e", "3")]), &environment)
            .unwrap();
    assert!(same(&second, "b", &first.0.credentials["a"]));
    assert!(same(&second, "d", &first.0.credentials["c"]));
    assert!(!same(&second, "e", &first.0.credentials["a"]));
    // What is taken away is told of under no name, whatever an attempt under way still brings.
    let names = Arc::clone(&second.0.credentials["e"].names);
    assert!(names.contain("e"));
    drop(second);
    assert!(!names.contain("e"));
}
