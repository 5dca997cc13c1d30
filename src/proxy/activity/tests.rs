//! What the sweep finds, and when.

use std::time::Duration;

use super::{super::registry::Registry, *};

fn ticks() -> Rc<Ticks> {
    Rc::new(Ticks::new(Duration::from_secs(10), Duration::from_secs(10), Duration::from_secs(300)))
}

/// Lets so many seconds go by.
fn pass(ticks: &Ticks, registry: &Registry, seconds: u32) {
    for _ in 0..seconds * ticks.of(Duration::from_secs(1)) {
        ticks.advance();
        registry.sweep();
    }
}

#[test]
fn a_slow_head_is_closed_after_its_limit_and_not_before() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    activity.received(true);
    pass(&ticks, &registry, 10);
    assert!(!activity.must_close());
    // More of the same head does not buy more time.
    activity.received(true);
    pass(&ticks, &registry, 1);
    assert!(activity.must_close());
}

#[test]
fn an_idle_connection_is_closed_but_a_slow_reader_is_not() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    for _ in 0..4 {
        pass(&ticks, &registry, 200);
        activity.sent();
    }
    assert!(!activity.must_close());
    pass(&ticks, &registry, 301);
    assert!(activity.must_close());
}

#[test]
fn a_caller_that_takes_nothing_of_its_answer_is_closed_and_one_that_takes_a_little_is_not() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    activity.serving();
    pass(&ticks, &registry, 1000);
    assert!(!activity.must_close(), "an answer may take its time");
    for _ in 0..4 {
        activity.stalls();
        pass(&ticks, &registry, 200);
        activity.sent();
    }
    activity.stalls();
    pass(&ticks, &registry, 200);
    activity.stalls();
    assert!(!activity.must_close());
    pass(&ticks, &registry, 101);
    assert!(activity.must_close());
}

#[test]
fn an_overdue_answer_is_told_and_forgotten_with_the_next_step() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    activity.awaiting(ticks.of(Duration::from_millis(1500)));
    pass(&ticks, &registry, 1);
    assert!(!activity.is_overdue());
    pass(&ticks, &registry, 1);
    assert!(activity.is_overdue());
    activity.serving();
    pass(&ticks, &registry, 1000);
    assert!(!activity.is_overdue() && !activity.must_close());
}

#[test]
fn a_request_of_a_caller_that_has_left_is_served_for_a_moment_and_not_for_ever() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    activity.serving();
    activity.left();
    for _ in 0..3 {
        pass(&ticks, &registry, 5);
        assert!(!activity.must_close(), "it still takes bytes");
        activity.sent();
    }
    pass(&ticks, &registry, 5);
    assert!(!activity.must_close());
    pass(&ticks, &registry, 1);
    assert!(activity.must_close());
}

struct Socket(Cell<Presence>);

impl Look for Socket {
    fn presence(&self) -> Presence {
        self.0.get()
    }

    fn keep_alive(&self) {}

    fn abort(&self) {}
}

#[test]
fn a_caller_that_goes_away_while_nothing_is_read_is_seen_and_one_that_only_says_no_more_has_a_moment() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    let socket = Rc::new(Socket(Cell::new(Presence::Gone)));
    let weak: Weak<dyn Look> = Rc::downgrade(&(Rc::clone(&socket) as Rc<dyn Look>));
    activity.watches(weak);
    pass(&ticks, &registry, 2);
    assert!(!activity.must_close(), "between requests it is read");
    activity.serving();
    socket.0.set(Presence::Silent);
    pass(&ticks, &registry, 5);
    activity.progressed();
    pass(&ticks, &registry, 5);
    assert!(!activity.must_close(), "its upload goes on");
    pass(&ticks, &registry, 1);
    assert!(activity.must_close());

    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    activity.watches(Rc::downgrade(&(Rc::clone(&socket) as Rc<dyn Look>)));
    activity.awaiting(60);
    socket.0.set(Presence::Gone);
    pass(&ticks, &registry, 1);
    assert!(activity.must_close());
}

#[test]
fn a_quiet_connection_loses_its_room_for_a_request_once_what_was_written_is_out() {
    let (ticks, registry) = (ticks(), Registry::default());
    let activity = Rc::new(Activity::new(Rc::clone(&ticks)));
    registry.add(&activity);
    activity.conversing(true);
    activity.serving();
    activity.idle();
    registry.settle();
    registry.settle();
    assert!(!activity.should_park(), "its answer is still in the buffer");
    activity.flushed();
    registry.settle();
    assert!(!activity.should_park(), "it has been flushed just now");
    registry.settle();
    assert!(activity.should_park());
    activity.received(true);
    assert!(!activity.should_park(), "a request came first");
}
