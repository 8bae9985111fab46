//! When requests are sent: one after the other (closed loop), or at times fixed beforehand (open loop).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

const NANOS: u128 = 1_000_000_000;
/// How long after the end a request that became due shortly before it may still be sent.
const GRACE: Duration = Duration::from_millis(50);

/// One request to send.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Counts from 0.
    pub number: u64,
    /// When it ought to be sent; latency counts from here.
    pub intended: Instant,
    /// When its connection became free.
    pub free: Instant,
}

/// Hands out the requests of a load to its connections.
#[derive(Debug)]
pub struct Schedule {
    begun: Instant,
    length: Duration,
    /// Requests a second; `None` for the closed loop.
    rate: Option<u64>,
    next: AtomicU64,
    /// In the open loop, requests that are due and not taken yet.
    due: Semaphore,
}

impl Schedule {
    /// Lasts for `length` from `begun`.
    pub fn new(begun: Instant, length: Duration, rate: Option<u64>) -> Self {
        Self { begun, length, rate, next: AtomicU64::new(0), due: Semaphore::new(0) }
    }

    /// Waits until a request is due. `None` when there are no more, or the time is up.
    pub async fn next(&self) -> Option<Slot> {
        let free = Instant::now();
        let Some(rate) = self.rate else {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            return (self.begun.elapsed() < self.length).then_some(Slot { number, intended: free, free });
        };
        self.due.acquire().await.ok()?.forget();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Some(Slot { number, intended: self.begun + offset(number, rate), free })
    }

    /// Releases the requests of the open loop when they are due, then lets all connections end. Blocks its thread, because the
    /// runtime's timers are too coarse: they count in milliseconds.
    pub fn drive(&self) {
        let Some(rate) = self.rate else { return };
        wait_until(self.begun);
        let (total, mut released) = (before(self.length, rate), 0);
        while released < total {
            let due = before(self.begun.elapsed() + Duration::from_nanos(1), rate).min(total);
            self.due.add_permits(usize::try_from(due - released).unwrap_or_default());
            released = due;
            wait_until(self.begun + offset(due, rate));
        }
        wait_until(self.begun + self.length + GRACE);
        self.due.close();
    }
}

/// Blocks the thread.
fn wait_until(time: Instant) {
    while let Some(rest) = time.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

/// Returns how many requests are due before the end of a time.
pub fn before(time: Duration, rate: u64) -> u64 {
    u64::try_from((time.as_nanos() * u128::from(rate)).div_ceil(NANOS)).unwrap_or(u64::MAX)
}

/// Returns the time from the begin to a request.
fn offset(number: u64, rate: u64) -> Duration {
    Duration::from_nanos(u64::try_from(u128::from(number) * NANOS / u128::from(rate)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn requests_are_spread_evenly_and_the_end_is_not_one() {
        assert_eq!([0, 1, 2, 3].map(|n| offset(n, 4).as_millis()), [0, 250, 500, 750]);
        let second = Duration::from_secs(1);
        assert_eq!([1, 3, 1000, 99_999].map(|rate| before(second, rate)), [1, 3, 1000, 99_999]);
        for rate in [1, 3, 7, 997, 30_000] {
            for number in [0, 1, 2, 996, 1_000_003] {
                let at = offset(number, rate);
                assert_eq!(before(at + Duration::from_nanos(1), rate), number + 1, "request {number} of {rate} a second is due");
                assert!(before(at, rate) <= number, "request {number} of {rate} a second is not due before its time");
            }
        }
    }

    #[tokio::test]
    async fn an_open_loop_hands_out_each_request_at_its_time_whatever_its_connections_do() {
        let begun = Instant::now();
        let schedule = Arc::new(Schedule::new(begun, Duration::from_millis(100), Some(200)));
        let driver = tokio::task::spawn_blocking({
            let schedule = schedule.clone();
            move || schedule.drive()
        });
        let mut slots = Vec::new();
        while let Some(slot) = schedule.next().await {
            assert!(Instant::now() >= slot.intended, "request {} came too early", slot.number);
            slots.push((slot.number, slot.intended - begun));
        }
        driver.await.unwrap();
        assert_eq!(slots, (0..20).map(|n| (n, Duration::from_millis(5 * n))).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_closed_loop_sends_as_soon_as_its_connection_is_free_until_the_time_is_up() {
        let schedule = Schedule::new(Instant::now(), Duration::from_hours(1), None);
        let (first, second) = (schedule.next().await.unwrap(), schedule.next().await.unwrap());
        assert_eq!((first.number, second.number), (0, 1));
        assert_eq!(first.intended, first.free);
        assert!(Schedule::new(Instant::now(), Duration::ZERO, None).next().await.is_none());
    }
}
