//! Chooses one of the addresses of a name: happy eyeballs (RFC 8305), without I/O of its own.
//!
//! The resolver returns the addresses of both families at once, so the "Resolution Delay" of RFC
//! 8305 section 3 does not apply.

use std::{collections::VecDeque, future::Future, io, net::SocketAddr, time::Duration};

use futures::{StreamExt, future::Either, stream::FuturesUnordered};

/// Tries the addresses one after the other until one accepts the connection.
///
/// The next attempt begins when the previous one fails, or after [`STAGGER`]. Attempts run in
/// parallel until the first success. If all fail, the error is that of the attempt that failed
/// last. An attempt that hangs is bounded by `connect` itself or by the caller's deadline.
pub(super) async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut waiting = alternate(addresses);
    let mut running = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.pop_front() {
            running.push(connect(address));
        }
        let delay = if waiting.is_empty() {
            Either::Left(std::future::pending())
        } else {
            Either::Right(stagger())
        };
        tokio::select! {
            // If an attempt succeeds just when the next one is due, the success counts.
            biased;
            attempt = running.next() => match attempt {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(failed)) => error = failed,
                None => return Err(error),
            },
            () = delay => {}
        }
    }
}

/// Orders the addresses so that the families alternate, beginning with the family that the resolver
/// lists first (RFC 8305 section 4).
fn alternate(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses = addresses.into_iter().peekable();
    let Some(preferred) = addresses.peek().map(SocketAddr::is_ipv6) else { return VecDeque::new() };
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == preferred);
    let mut order = VecDeque::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            return order;
        }
        order.extend(pair.0.into_iter().chain(pair.1));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "within one attempt to dial, which the session's timer bounds"
)]
fn stagger() -> tokio::time::Sleep {
    tokio::time::sleep(STAGGER)
}

/// The "Connection Attempt Delay" of RFC 8305 section 8.
const STAGGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// How the host at an address reacts.
    #[derive(Clone, Copy)]
    enum Host {
        Accepts {
            after_ms: u64,
        },
        Refuses {
            after_ms: u64,
        },
        /// Drops all packets.
        Hangs,
    }

    /// Returns which address was connected to, and when each attempt began, in ms.
    async fn run(hosts: &[(&str, Host)]) -> (io::Result<String>, Vec<(String, u128)>) {
        let start = now();
        let begun = RefCell::new(Vec::new());
        let raced = race(hosts.iter().map(|(address, _)| address.parse().unwrap()), |address| {
            let (name, host) = *hosts.iter().find(|(name, _)| name.parse() == Ok(address)).unwrap();
            begun.borrow_mut().push((name.to_owned(), (now() - start).as_millis()));
            async move {
                match host {
                    Host::Accepts { after_ms } => pass(after_ms).await,
                    Host::Refuses { after_ms } => {
                        pass(after_ms).await;
                        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, name));
                    }
                    Host::Hangs => std::future::pending().await,
                }
                Ok(name.to_owned())
            }
        });
        let raced = tokio::time::timeout(Duration::from_secs(10), raced).await;
        let raced = raced.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        (raced, begun.into_inner())
    }

    fn log(begun: &[(&str, u128)]) -> Vec<(String, u128)> {
        begun.iter().map(|&(name, at)| (name.to_owned(), at)).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "the clock is paused")]
    fn now() -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the clock is paused")]
    async fn pass(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    const V6: &str = "[2001:db8::1]:443";
    const V6_TOO: &str = "[2001:db8::2]:443";
    const V4: &str = "192.0.2.1:443";
    const V4_TOO: &str = "192.0.2.2:443";

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hangs_costs_a_quarter_of_a_second() {
        let (won, begun) = run(&[(V6, Host::Hangs), (V4, Host::Accepts { after_ms: 10 })]).await;
        assert_eq!(won.unwrap(), V4);
        assert_eq!(begun, log(&[(V6, 0), (V4, 250)]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_only_the_time_of_its_answer() {
        let (won, begun) =
            run(&[(V6, Host::Refuses { after_ms: 3 }), (V4, Host::Accepts { after_ms: 10 })]).await;
        assert_eq!(won.unwrap(), V4);
        assert_eq!(begun, log(&[(V6, 0), (V4, 3)]));
    }

    #[tokio::test(start_paused = true)]
    async fn families_alternate_and_that_of_the_first_address_begins() {
        let all = |order: [&'static str; 4]| order.map(|address| (address, Host::Hangs));
        let (_, begun) = run(&all([V6, V6_TOO, V4, V4_TOO])).await;
        assert_eq!(begun, log(&[(V6, 0), (V4, 250), (V6_TOO, 500), (V4_TOO, 750)]));
        let (_, begun) = run(&all([V4, V4_TOO, V6, V6_TOO])).await;
        assert_eq!(begun, log(&[(V4, 0), (V6, 250), (V4_TOO, 500), (V6_TOO, 750)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_may_still_win_after_the_next_attempt_began() {
        let (won, begun) =
            run(&[(V6, Host::Accepts { after_ms: 400 }), (V4, Host::Accepts { after_ms: 300 })])
                .await;
        assert_eq!(won.unwrap(), V6);
        assert_eq!(begun, log(&[(V6, 0), (V4, 250)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_refusal_starts_the_next_attempt_at_once() {
        let hosts = [
            (V6, Host::Refuses { after_ms: 300 }),
            (V4, Host::Hangs),
            (V6_TOO, Host::Accepts { after_ms: 1 }),
        ];
        let (won, begun) = run(&hosts).await;
        assert_eq!(won.unwrap(), V6_TOO);
        assert_eq!(begun, log(&[(V6, 0), (V4, 250), (V6_TOO, 300)]));
    }

    #[tokio::test(start_paused = true)]
    async fn if_all_refuse_the_error_is_that_of_the_last() {
        let (won, _) =
            run(&[(V6, Host::Refuses { after_ms: 1 }), (V4, Host::Refuses { after_ms: 1 })]).await;
        assert_eq!(won.unwrap_err().to_string(), V4);
        let (won, _) = run(&[]).await;
        assert_eq!(won.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
