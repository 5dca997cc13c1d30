//! Lines on their way to standard error, written by a thread of their own: whoever logs never waits for who reads.
//!
//! 1. [`Lines::write_to`] starts the thread; a clone of [`Lines`] is what the subscriber writes to.
//! 2. A line goes into a bounded queue. When that is full, because a pipe is not read or a disk hangs, the line is lost
//!    and counted: a request is worth more than the line about it.
//! 3. The thread writes what is queued with few system calls. A write that fails, as on a full disk, loses its lines.
//! 4. Dropping the [`Log`] waits a moment for what is queued: the last lines of a process are the ones that matter.

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use prometheus::IntCounter;

/// Lines that wait to be written: a burst of a busy second, and about 1 MiB.
const QUEUED: usize = 4096;

/// The most bytes that are put together for one write.
const BATCH: usize = 64 * 1024;

/// How long the end of the process waits for its last lines.
const FAREWELL: Duration = Duration::from_millis(500);

/// The line that says how many are missing, in the format of the others.
pub(super) type Losing = fn(u64) -> String;

/// Where the subscriber writes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    // A standard channel: it is filled from threads with a runtime, and emptied by one without.
    queue: Sender<Vec<u8>>,
    losses: Arc<Losses>,
}

/// The log of the process, for as long as this is kept.
#[derive(Debug)]
pub struct Log {
    losses: Arc<Losses>,
    // Disconnected when the thread has written everything that was queued before the marker.
    written: Receiver<()>,
    queue: Sender<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Losses {
    // Lines in the queue. They are counted here because a queue that is bounded by itself takes all of its room at once.
    waiting: AtomicUsize,
    // Since the log last said so.
    untold: AtomicU64,
    counter: OnceLock<IntCounter>,
}

impl Losses {
    /// Room for one more line in the queue, if there is any.
    fn enter(&self) -> bool {
        let entered = self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUED;
        if !entered {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        entered
    }

    fn add(&self, lines: u64) {
        self.untold.fetch_add(lines, Ordering::Relaxed);
        if let Some(counter) = self.counter.get() {
            counter.inc_by(lines);
        }
    }
}

impl Lines {
    /// Starts the thread that writes to `output`.
    pub(super) fn write_to(output: impl Write + Send + 'static, losing: Losing) -> io::Result<(Self, Log)> {
        let (queue, lines) = channel();
        let (done, written) = channel();
        let losses = Arc::new(Losses::default());
        let counted = Arc::clone(&losses);
        thread::Builder::new().name("log".into()).spawn(move || {
            write_all(&lines, output, &counted, losing);
            drop(done);
        })?;
        Ok((Self { queue: queue.clone(), losses: Arc::clone(&losses) }, Log { losses, written, queue }))
    }
}

/// Writes lines until an empty one, which is the last.
fn write_all(lines: &Receiver<Vec<u8>>, mut output: impl Write, losses: &Losses, losing: Losing) {
    let mut batch = Vec::new();
    let mut end = false;
    while !end {
        let Ok(first) = lines.recv() else { break };
        let mut count = 0;
        for line in std::iter::once(first).chain(lines.try_iter()) {
            losses.waiting.fetch_sub(1, Ordering::Relaxed);
            end = line.is_empty();
            count += u64::from(!end);
            batch.extend_from_slice(&line);
            if end || batch.len() >= BATCH {
                break;
            }
        }
        if output.write_all(&batch).is_err() {
            losses.add(count);
        } else {
            tell_losses(&mut output, losses, losing);
        }
        batch.clear();
    }
    let _ = output.flush();
}

/// Says how many lines are missing, where the next ones stand.
fn tell_losses(output: &mut impl Write, losses: &Losses, losing: Losing) {
    let lost = losses.untold.swap(0, Ordering::Relaxed);
    if lost > 0 && writeln!(output, "{}", losing(lost)).is_err() {
        losses.untold.fetch_add(lost, Ordering::Relaxed);
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Empty means the end of the log; an event is never empty.
        let taken = line.is_empty() || (self.losses.enter() && self.queue.send(line.to_vec()).is_ok());
        if !taken {
            self.losses.add(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Counts lost lines here from now on.
    pub fn count_losses(&self, counter: IntCounter) {
        counter.inc_by(self.losses.untold.load(Ordering::Relaxed));
        // A second counter is ignored: a process has one log.
        let _ = self.losses.counter.set(counter);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // A queue that is full stands still, and waiting would be in vain.
        if self.losses.enter()
            && self.queue.send(Vec::new()).is_ok()
            && self.written.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout)
        {
            self.losses.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// Holds every write back until it is let go, and remembers what was written.
    struct Gate {
        open: mpsc::Receiver<()>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A closed gate whose keeper has gone is open.
            let _ = self.open.recv();
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// As the subscriber does it: one line, one write.
    fn log_line(lines: &mut Lines, line: &str) {
        lines.write_all(line.as_bytes()).unwrap();
    }

    fn losing(lost: u64) -> String {
        format!("{lost} lines of the log were lost")
    }

    fn text(of: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(of.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_what_is_lost_is_counted_and_told() {
        let (open, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut lines, log) =
            Lines::write_to(Gate { open: gate, text: Arc::clone(&written) }, losing).unwrap();
        let counter = IntCounter::new("lost", "lost").unwrap();
        log.count_losses(counter.clone());
        for number in 0..QUEUED * 3 {
            log_line(&mut lines, &format!("line {number}\n"));
        }
        assert!(counter.get() > 0);
        drop(open);
        // The end of the log needs a place in the queue: it is there when the thread has come to the last of it.
        while !text(&written).contains("lines of the log were lost") {
            std::thread::yield_now();
        }
        drop(log);
        let text = text(&written);
        assert!(text.starts_with("line 0\n"));
        assert!(text.contains(&format!("{} lines of the log were lost", counter.get())), "{}", counter.get());
    }

    #[test]
    fn the_last_lines_are_written_before_the_process_ends() {
        let (open, gate) = mpsc::channel();
        drop(open);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut lines, log) =
            Lines::write_to(Gate { open: gate, text: Arc::clone(&written) }, losing).unwrap();
        for number in 0..100 {
            log_line(&mut lines, &format!("line {number}\n"));
        }
        drop(log);
        assert!(text(&written).ends_with("line 99\n"));
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (mut lines, log) = Lines::write_to(full, losing).unwrap();
        let counter = IntCounter::new("lost", "lost").unwrap();
        log.count_losses(counter.clone());
        log_line(&mut lines, "a line\n");
        drop(log);
        assert_eq!(counter.get(), 1);
    }
}
