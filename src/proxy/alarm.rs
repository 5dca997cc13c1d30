//! What wakes a worker after a while, without a timer of its runtime.
//!
//! As long as such a timer is set, every wait for events has a time limit, which the kernel sets up and takes down again: about
//! a microsecond each time (`benches/README.md`), twice a request when there is one at a time. A timer of the kernel
//! (timerfd_create(2)) is set once, and is one more thing to wait for.

use std::{future, pin::Pin, time::Duration};

use tokio::time::{self, Sleep};

/// Rings once each time it is set, a fixed while later. Made and used on a worker's runtime.
pub(super) struct Alarm {
    after: Duration,
    timer: Timer,
}

enum Timer {
    #[cfg(target_os = "linux")]
    Kernel(kernel::Timer),
    /// Where the kernel has none to give.
    Runtime(Option<Pin<Box<Sleep>>>),
}

impl Alarm {
    /// Set from now on.
    pub(super) fn after(after: Duration) -> Self {
        #[cfg(target_os = "linux")]
        let timer = kernel::Timer::new().map_or(Timer::Runtime(None), Timer::Kernel);
        #[cfg(not(target_os = "linux"))]
        let timer = Timer::Runtime(None);
        let mut alarm = Self { after, timer };
        alarm.set();
        alarm
    }

    /// Rings once more, from now on.
    pub(super) fn set(&mut self) {
        match &mut self.timer {
            #[cfg(target_os = "linux")]
            Timer::Kernel(timer) if timer.set(self.after).is_ok() => {}
            timer => *timer = Timer::Runtime(Some(Box::pin(time::sleep(self.after)))),
        }
    }

    /// Waits until it rings. Whoever stops waiting misses nothing.
    pub(super) async fn rings(&mut self) {
        #[cfg(target_os = "linux")]
        if let Timer::Kernel(timer) = &self.timer {
            if timer.rings().await.is_ok() {
                return;
            }
            self.timer = Timer::Runtime(Some(Box::pin(time::sleep(self.after))));
        }
        match &mut self.timer {
            Timer::Runtime(Some(sleep)) => {
                sleep.await;
                self.timer = Timer::Runtime(None);
            }
            _ => future::pending().await,
        }
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::{io, os::fd::OwnedFd, time::Duration};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::{Interest, unix::AsyncFd};

    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[expect(
            deprecated,
            reason = "unsound with what closes or changes its descriptor, which nothing here does; what is to be called instead is unsafe"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        /// Also forgets that it has rung before.
        pub(super) fn set(&self, after: Duration) -> io::Result<()> {
            let once = Itimerspec {
                it_interval: Timespec::default(),
                // Zero would stop it.
                it_value: after.max(Duration::from_nanos(1)).try_into().map_err(io::Error::other)?,
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }

        pub(super) async fn rings(&self) -> io::Result<()> {
            // How often it has rung is not asked, only whether.
            let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
            self.0.async_io(Interest::READABLE, read).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    const WHILE: Duration = Duration::from_millis(10);

    async fn rings_when_it_was_set(mut alarm: Alarm) {
        for _ in 0..3 {
            let begin = Instant::now();
            alarm.set();
            alarm.rings().await;
            // Timers of the runtime count whole milliseconds.
            assert!(begin.elapsed() + Duration::from_millis(1) >= WHILE, "{:?}", begin.elapsed());
            assert!(alarm.rings().now_or_never().is_none(), "it has rung once");
        }
    }

    #[tokio::test]
    async fn an_alarm_rings_once_each_time_that_it_is_set() {
        rings_when_it_was_set(Alarm::after(WHILE)).await;
    }

    #[tokio::test]
    async fn so_does_one_of_the_runtime() {
        rings_when_it_was_set(Alarm { after: WHILE, timer: Timer::Runtime(None) }).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_rings_where_it_can() {
        assert!(matches!(Alarm::after(WHILE).timer, Timer::Kernel(_)));
    }
}
