//! Changes of addresses, routes and interfaces on Linux: rtnetlink(7).
//!
//! Owns the socket and reads its messages. It sends no requests, so the kernel reports changes only
//! and never the state at the start.

use std::io;

use futures::stream::{self, StreamExt};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with},
};
use tokio::net::UdpSocket;

use super::Changes;

pub(crate) fn open() -> io::Result<Changes> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // The protocol is `NETLINK_ROUTE`, which is 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // The socket is only used for recv(2), which is the same for all datagram sockets. tokio's API
    // for other descriptors would need `unsafe`.
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
    let changes = stream::try_unfold(socket, |socket| async move {
        change(&socket).await?;
        Ok(Some(((), socket)))
    });
    Ok(changes.boxed())
}

async fn change(socket: &UdpSocket) -> io::Result<()> {
    let mut datagram = [0; DATAGRAM];
    loop {
        match socket.recv(&mut datagram).await {
            // A longer datagram is cut. The fields that are read are at the beginning of a message.
            Ok(bytes) if is_change(&datagram[..bytes]) => return Ok(()),
            Ok(_) => {}
            // The kernel dropped messages because its buffer was full. One may have been a change.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether one of the messages reports a change that may affect a connection to another machine.
fn is_change(mut datagram: &[u8]) -> bool {
    while let Some(length) = u32_at(datagram, 0).and_then(|length| usize::try_from(length).ok())
        && let Some(kind) = u16_at(datagram, 4)
        && length >= HEADER
    {
        if is_relevant(kind, datagram.get(HEADER..length.min(datagram.len())).unwrap_or_default()) {
            return true;
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn is_relevant(kind: u16, body: &[u8]) -> bool {
    match kind {
        // `struct ifinfomsg`. Only going up or down counts: the kernel marks no other flag as
        // changed, and Wi-Fi sends a message for each scan.
        RTM_NEWLINK => {
            let (flags, changed) =
                (u32_at(body, 8).unwrap_or_default(), u32_at(body, 12).unwrap_or_default());
            changed & IFF_UP != 0 && flags & IFF_LOOPBACK == 0
        }
        // `struct ifaddrmsg`. Addresses of this machine or this link reach no other network.
        RTM_NEWADDR | RTM_DELADDR => {
            let is_renewed = kind == RTM_NEWADDR && body.get(8..).is_some_and(is_renewal);
            body.get(3).is_some_and(|&scope| scope < RT_SCOPE_LINK) && !is_renewed
        }
        // `struct rtmsg`. Only default routes count, which have a prefix of 0 bits. VPNs override
        // them with two routes of 1 bit.
        RTM_NEWROUTE | RTM_DELROUTE => body.get(1).is_some_and(|&prefix| prefix <= 1),
        _ => false,
    }
}

/// Whether the message only renews an address. DHCP and router advertisements extend the lifetime
/// of an address every few minutes.
fn is_renewal(mut attributes: &[u8]) -> bool {
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        if kind == IFA_CACHEINFO {
            let (created, updated) = (u32_at(attributes, 12), u32_at(attributes, 16));
            return created.zip(updated).is_some_and(|(created, updated)| {
                updated.wrapping_sub(created) > SAME_TIME_CENTIS
            });
        }
        let next = usize::from(length).max(4).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The size of the buffer in bytes. Only messages about interfaces, with many statistics, may be
/// longer.
const DATAGRAM: usize = 8 * 1024;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// The largest difference between the two time stamps of a new address, in hundredths of a second.
const SAME_TIME_CENTIS: u32 = 100;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFA_CACHEINFO: u16 = 6;
const RT_SCOPE_LINK: u8 = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn address(kind: u16, scope: u8, attributes: &[u8]) -> Vec<u8> {
        message(kind, &[&[2, 24, 0, scope, 1, 0, 0, 0], attributes].concat())
    }

    /// The attributes of an address with these two time stamps. An attribute of an odd length comes
    /// first.
    fn stamps(created: u32, updated: u32) -> Vec<u8> {
        let mut attributes =
            [&5_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), &[7, 0, 0, 0]].concat();
        attributes.extend([20_u16.to_ne_bytes(), IFA_CACHEINFO.to_ne_bytes()].concat());
        attributes
            .extend([[0xFF; 4], [0xFF; 4], created.to_ne_bytes(), updated.to_ne_bytes()].concat());
        attributes
    }

    fn link(flags: u32, changed: u32) -> Vec<u8> {
        message(RTM_NEWLINK, &[&[0; 8][..], &flags.to_ne_bytes(), &changed.to_ne_bytes()].concat())
    }

    fn route(kind: u16, prefix: u8) -> Vec<u8> {
        message(kind, &[2, prefix, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0])
    }

    #[test]
    fn only_what_may_affect_a_connection_to_another_machine_is_a_change() {
        let (global, site, host) = (0, 200, 254);
        for (datagram, matters, what) in [
            (address(RTM_NEWADDR, global, &[]), true, "a new address"),
            (address(RTM_NEWADDR, global, &stamps(500, 501)), true, "a new address with its life"),
            (address(RTM_NEWADDR, site, &stamps(500, 500)), true, "one of this site"),
            (address(RTM_DELADDR, global, &stamps(500, 90_000)), true, "a lost address"),
            (address(RTM_NEWADDR, global, &stamps(500, 90_000)), false, "one that was prolonged"),
            (
                address(RTM_NEWADDR, global, &stamps(u32::MAX, 10)),
                true,
                "one at the time when the stamps start again",
            ),
            (address(RTM_NEWADDR, RT_SCOPE_LINK, &[]), false, "one of this link"),
            (address(RTM_DELADDR, host, &[]), false, "one of this machine"),
            (route(RTM_NEWROUTE, 0), true, "a default route"),
            (route(RTM_DELROUTE, 0), true, "a lost default route"),
            (route(RTM_NEWROUTE, 1), true, "a half of everything"),
            (route(RTM_NEWROUTE, 24), false, "a route to a network"),
            (link(IFF_UP, IFF_UP), true, "an interface that is up"),
            (link(0, IFF_UP), true, "an interface that is down"),
            (link(IFF_UP, 0), false, "a scan for Wi-Fi"),
            (link(IFF_UP | IFF_LOOPBACK, IFF_UP), false, "the loopback interface"),
            (message(2, &[0; 20]), false, "an error"),
        ] {
            assert_eq!(is_change(&datagram), matters, "{what}");
            // The position in the datagram makes no difference.
            let behind = [route(RTM_NEWROUTE, 24), message(99, &[1; 3]), datagram].concat();
            assert_eq!(is_change(&behind), matters, "{what}, behind others");
        }
    }

    #[test]
    fn datagrams_that_are_cut_or_garbage_cause_no_panic() {
        let whole =
            [route(RTM_NEWROUTE, 24), address(RTM_NEWADDR, 0, &stamps(1, 90_000)), link(1, 0)]
                .concat();
        for length in 0..whole.len() {
            is_change(&whole[..length]);
        }
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            let mut garbage = whole.clone();
            for _ in 0..rng.usize(1..8) {
                let at = rng.usize(..garbage.len());
                garbage[at] = rng.u8(..);
            }
            is_change(&garbage);
        }
        assert!(!is_change(&[0; 64]), "a length of 0 is no endless loop");
        assert!(!is_change(&[0xFF; 64]));
    }
}
