//! A timer of nanoseconds: the runtime's own are late by up to two milliseconds, which is much of an
//! interval between adverts.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// The shortest that a timer takes: 0 would switch it off.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// One timer, on the runtime that it was made in.
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    ///
    /// If the kernel gives none.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` has the same descriptor for as long as it lives, and nothing takes it out
        // of the `AsyncFd` before that is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Waits until then; without a deadline for ever. May be cancelled: the next call sets it anew.
    ///
    /// # Errors
    ///
    /// If the kernel does not take it, which would be a mistake of ours.
    pub async fn wait_until(&self, deadline: Option<Instant>) -> io::Result<()> {
        let Some(deadline) = deadline else {
            return std::future::pending().await;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left.max(AT_ONCE)).unwrap_or(Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            }),
        };
        // Whatever it has told before is forgotten with this: a read would find nothing.
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
        self.0.async_io(Interest::READABLE, read).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::pin,
        task::Poll,
        time::{Duration, Instant},
    };

    use super::Alarm;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Whether an alarm stays silent when it is asked at once.
    async fn is_silent(alarm: &Alarm, deadline: Option<Instant>) -> bool {
        let mut waiting = pin!(alarm.wait_until(deadline));
        poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn it_goes_off_at_its_time_and_not_before() {
        let alarm = Alarm::new().unwrap();
        let deadline = Instant::now() + Duration::from_micros(1_500);
        alarm.wait_until(Some(deadline)).await.unwrap();
        assert!(Instant::now() >= deadline);
        alarm.wait_until(Some(deadline)).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_set_anew_does_not_tell_of_the_time_before() {
        let alarm = Alarm::new().unwrap();
        let soon = Instant::now() + Duration::from_millis(1);
        assert!(is_silent(&alarm, Some(soon + HOUR)).await);
        is_silent(&alarm, Some(soon)).await;
        // It goes off, and nobody listens.
        std::thread::sleep(Duration::from_millis(5));
        assert!(is_silent(&alarm, Some(soon + HOUR)).await);
        assert!(is_silent(&alarm, None).await);
    }
}
