//! `Patience`: how often and how long a failure that may pass is waited for.

use std::thread;
use std::time::Duration;

use super::error::HubError;

/// How to meet failures that may pass: broken connections, 429 and 5xx.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in a row that bring nothing, before giving up; at least one is made.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait, also where the hub asks for a longer one.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: HubError,
    /// Whether another attempt may succeed.
    pub passing: bool,
    /// The wait that the hub asked for.
    pub wait: Option<Duration>,
    /// Whether the attempt brought something, so that the count begins anew.
    pub progress: bool,
}

impl Failure {
    /// A failure that the next attempt would meet too.
    pub fn lasting(error: impl Into<HubError>) -> Self {
        Self {
            error: error.into(),
            passing: false,
            wait: None,
            progress: false,
        }
    }

    /// A failure that may pass.
    pub fn passing(error: HubError) -> Self {
        Self {
            error,
            passing: true,
            wait: None,
            progress: false,
        }
    }
}

impl Patience {
    /// Makes attempts until one succeeds, one fails for good, or too many in a row brought nothing.
    pub(super) fn retry<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let (mut failures, mut wait) = (0, self.first_wait);
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if failure.progress {
                (failures, wait) = (0, self.first_wait);
            }
            failures += 1;
            if !failure.passing || failures >= self.attempts {
                return Err(failure.error);
            }
            tracing::warn!(error = %failure.error, failures, "trying again");
            thread::sleep(failure.wait.unwrap_or(wait).min(self.longest_wait));
            wait = wait.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Patience = Patience {
        attempts: 3,
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
    };

    #[test]
    fn gives_up_after_failures_in_a_row() {
        for (outcomes, attempts, good) in [
            ("+", 1, true),
            ("pp+", 3, true),
            ("ppp+", 3, false),
            ("ppgpp+", 5, false),
            ("ppgp+", 5, true),
            ("pl+", 2, false),
        ] {
            let mut made = 0;
            let mut steps = outcomes.chars();
            let result = QUICK.retry(|| {
                made += 1;
                match steps.next() {
                    Some('+') => Ok(()),
                    Some('l') => Err(Failure::lasting(HubError::NoFiles)),
                    step => Err(Failure {
                        progress: step == Some('g'),
                        ..Failure::passing(HubError::Server(500))
                    }),
                }
            });
            assert_eq!((made, result.is_ok()), (attempts, good), "{outcomes}");
        }
    }

    #[test]
    fn the_hub_cannot_make_it_wait_for_ever() {
        let long = Some(Duration::from_secs(1 << 40));
        let result = QUICK.retry(|| {
            Err::<(), _>(Failure {
                wait: long,
                ..Failure::passing(HubError::TooManyRequests)
            })
        });
        assert!(matches!(result, Err(HubError::TooManyRequests)));
    }
}
