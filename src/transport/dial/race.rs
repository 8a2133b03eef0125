//! Which of a name's addresses: happy eyeballs (RFC 8305), without I/O of its own.
//!
//! The resolver is asked once for both families, so there is no wait for the slower answer (section
//! 3 has none to begin with).

use std::{collections::VecDeque, future::Future, io, net::SocketAddr, time::Duration};

use futures::{StreamExt, future::Either, stream::FuturesUnordered};

/// Tries addresses until one takes the connection: the next one when an attempt fails, or does not
/// succeed within [`STAGGER`]. All that were begun go on until the first success; the error is that
/// of the attempt that failed last.
///
/// `connect` fails rather than waiting forever; else there is a deadline around all this.
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
        let patience = if waiting.is_empty() {
            Either::Left(std::future::pending())
        } else {
            Either::Right(stagger())
        };
        tokio::select! {
            // A success counts even if it is as late as the next attempt.
            biased;
            attempt = running.next() => match attempt {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(failed)) => error = failed,
                None => return Err(error),
            },
            () = patience => {}
        }
    }
}

/// The families in turn, each in the resolver's order, beginning with the one that the resolver
/// prefers (section 4).
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
    reason = "inside of one attempt to dial, which the session's timer bounds"
)]
fn stagger() -> tokio::time::Sleep {
    tokio::time::sleep(STAGGER)
}

/// The "Connection Attempt Delay" of section 8.
const STAGGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// What an address does.
    #[derive(Clone, Copy)]
    enum Host {
        Takes { after_ms: u64 },
        Refuses { after_ms: u64 },
        Swallows,
    }

    /// Which address was connected to and when each attempt began, in ms.
    async fn run(hosts: &[(&str, Host)]) -> (io::Result<String>, Vec<(String, u128)>) {
        let start = now();
        let begun = RefCell::new(Vec::new());
        let raced = race(hosts.iter().map(|(address, _)| address.parse().unwrap()), |address| {
            let (name, host) = *hosts.iter().find(|(name, _)| name.parse() == Ok(address)).unwrap();
            begun.borrow_mut().push((name.to_owned(), (now() - start).as_millis()));
            async move {
                match host {
                    Host::Takes { after_ms } => pass(after_ms).await,
                    Host::Refuses { after_ms } => {
                        pass(after_ms).await;
                        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, name));
                    }
                    Host::Swallows => std::future::pending().await,
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
    async fn an_address_that_swallows_packets_costs_a_quarter_of_a_second() {
        let (won, begun) = run(&[(V6, Host::Swallows), (V4, Host::Takes { after_ms: 10 })]).await;
        assert_eq!(won.unwrap(), V4);
        assert_eq!(begun, log(&[(V6, 0), (V4, 250)]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_no_more_than_its_answer() {
        let (won, begun) =
            run(&[(V6, Host::Refuses { after_ms: 3 }), (V4, Host::Takes { after_ms: 10 })]).await;
        assert_eq!(won.unwrap(), V4);
        assert_eq!(begun, log(&[(V6, 0), (V4, 3)]));
    }

    #[tokio::test(start_paused = true)]
    async fn families_take_turns_and_the_resolver_says_which_begins() {
        let all = |order: [&'static str; 4]| order.map(|address| (address, Host::Swallows));
        let (_, begun) = run(&all([V6, V6_TOO, V4, V4_TOO])).await;
        assert_eq!(begun, log(&[(V6, 0), (V4, 250), (V6_TOO, 500), (V4_TOO, 750)]));
        let (_, begun) = run(&all([V4, V4_TOO, V6, V6_TOO])).await;
        assert_eq!(begun, log(&[(V4, 0), (V6, 250), (V4_TOO, 500), (V6_TOO, 750)]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_slow_is_not_given_up_for_another() {
        let (won, begun) =
            run(&[(V6, Host::Takes { after_ms: 400 }), (V4, Host::Takes { after_ms: 300 })]).await;
        assert_eq!(won.unwrap(), V6);
        assert_eq!(begun, log(&[(V6, 0), (V4, 250)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_long_after_its_turn_hastens_the_next() {
        let hosts = [
            (V6, Host::Refuses { after_ms: 300 }),
            (V4, Host::Swallows),
            (V6_TOO, Host::Takes { after_ms: 1 }),
        ];
        let (won, begun) = run(&hosts).await;
        assert_eq!(won.unwrap(), V6_TOO);
        assert_eq!(begun, log(&[(V6, 0), (V4, 250), (V6_TOO, 300)]));
    }

    #[tokio::test(start_paused = true)]
    async fn if_all_refuse_the_last_one_is_quoted() {
        let (won, _) =
            run(&[(V6, Host::Refuses { after_ms: 1 }), (V4, Host::Refuses { after_ms: 1 })]).await;
        assert_eq!(won.unwrap_err().to_string(), V4);
        let (won, _) = run(&[]).await;
        assert_eq!(won.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
