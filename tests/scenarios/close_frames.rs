//! Close frames: those of the server that may not be sent, and those of the client.

use resub::{CloseCode, Disconnect};

use super::*;

/// Of a server, which masks nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(len @ ..126) = u8::try_from(payload.len()) {
        frame.push(len);
    } else {
        frame.push(126);
        frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    frame.extend(payload);
    frame
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// Sends each of these frames on a connection of its own, on which an operation is live. Returns
/// why each was lost, and the code with which the client closed it.
async fn lost_by(frames: &[Vec<u8>]) -> Vec<(Disconnect, u16)> {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, _) = live(&server).await;
    let mut lost = Vec::new();
    for frame in frames {
        peer.send_raw_frame_bytes(frame).await;
        let (code, _) = peer.expect_close().await;
        peer.expect_end().await;
        // It lives long enough for the next loss to be the first again.
        peer = connected(&server).await;
        peer.expect_subscribe().await;
        lost.push((gap(&mut stream).await.cause.unwrap(), code));
        peer.serve_while(tokio::time::sleep(secs(15))).await;
    }
    lost
}

#[tokio::test(start_paused = true)]
async fn a_close_code_that_may_not_be_sent_is_told_and_retried_and_not_taken_for_another() {
    let codes =
        [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 10_000, 65_535];
    let lost = lost_by(&codes.map(|code| close(code, b"bye"))).await;
    for (code, (cause, answer)) in codes.into_iter().zip(lost) {
        assert!(
            matches!(cause, Disconnect::InvalidCloseFrame { code: Some(told) } if told == code),
            "{cause:?}"
        );
        let expected = format!("the server sent an invalid close frame (code {code})");
        assert_eq!((cause.to_string(), answer), (expected, 1002));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_with_an_invalid_body_is_retried_whatever_its_code() {
    for (body, code, answer) in [
        (b"\x03" as &[u8], None, 1002),
        (b"\x11\x30\xff\xfe", Some(4400), 1007),
        (b"\x03\xe8caf\xc3", Some(1000), 1007),
        // 126 bytes, where RFC 6455 allows 125: real servers put a syntax error in it.
        (&[&4400_u16.to_be_bytes()[..], &[b'x'; 124]].concat(), Some(4400), 1002),
        (&[&4403_u16.to_be_bytes()[..], &b"x".repeat(60_000)].concat(), Some(4403), 1002),
        (&[&1002_u16.to_be_bytes()[..], &[b'x'; 160]].concat(), Some(1002), 1002),
    ] {
        let lost = lost_by(&[frame(0x88, body)]).await;
        let [(Disconnect::InvalidCloseFrame { code: told }, answered)] = lost[..] else {
            panic!("{lost:?}")
        };
        assert_eq!((told, answered), (code, answer));
    }
}

/// tungstenite does not know it.
#[tokio::test(start_paused = true)]
async fn code_1014_is_legal_and_retried() {
    let [(Disconnect::Closed { code: CloseCode(1014), reason }, 1014)] =
        &lost_by(&[close(1014, b"Bad Gateway")]).await[..]
    else {
        panic!("not a close")
    };
    assert_eq!(reason, "Bad Gateway");
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_code_is_answered_without_one() {
    let [(Disconnect::Closed { code: CloseCode::NO_STATUS, .. }, 1005)] =
        lost_by(&[frame(0x88, b"")]).await[..]
    else {
        panic!("not a close")
    };
}

/// As by a tunnel in front of a server that is down.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_any_number_of_invalid_close_frames_before_and_after_the_ack() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, _) = live(&server).await;
    for code in [1006, 1005, 1015].repeat(5) {
        peer.send_raw_frame_bytes(&close(code, b"")).await;
        peer.expect_end().await;
        let mut opening = server.accept().await.expect_init().await;
        opening.send_raw_frame_bytes(&close(code, b"")).await;
        opening.expect_end().await;
        peer = connected(&server).await;
    }
    let id = peer.expect_subscribe().await.id;
    peer.next(&id, data(1)).await;
    let cause = gap(&mut stream).await.cause;
    assert!(matches!(cause, Some(Disconnect::InvalidCloseFrame { .. })), "{cause:?}");
    assert_eq!(item(&mut stream).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_close_frame_is_read_and_what_comes_after_it_is_not() {
    let next = |id: &str, n: u32| {
        let text = json!({"type": "next", "id": id, "payload": data(n)}).to_string();
        frame(0x81, text.as_bytes())
    };
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, id) = live(&server).await;
    let bytes = [next(&id, 1), next(&id, 2), close(1006, b""), next(&id, 3), vec![0xff; 64]];
    peer.send_raw_frame_bytes(&bytes.concat()).await;
    connected(&server).await.expect_subscribe().await;
    assert_eq!((item(&mut stream).await, item(&mut stream).await), (json!(1), json!(2)));
    let cause = gap(&mut stream).await.cause.unwrap();
    assert!(matches!(cause, Disconnect::InvalidCloseFrame { code: Some(1006) }), "{cause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_that_is_cut_off_is_a_connection_that_broke_off() {
    let server = Server::in_memory();
    let (_client, mut stream, mut peer, _) = live(&server).await;
    peer.send_raw_frame_bytes(&close(4400, b"Invalid message")[..9]).await;
    peer.vanish();
    connected(&server).await.expect_subscribe().await;
    let cause = gap(&mut stream).await.cause.unwrap();
    assert!(matches!(cause, Disconnect::Reset(_)), "{cause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_websocket_protocol_is_told_with_1002() {
    let masked = [&[0x81, 0x82, 1, 2, 3, 4][..], b"{}"].concat();
    let frames = [
        masked,
        // Reserved bits, of data and of a close frame.
        frame(0xc1, b"{}"),
        frame(0xc8, &1000_u16.to_be_bytes()),
        // Reserved opcodes.
        frame(0x83, b""),
        frame(0x8b, b""),
        // Control frames that are not final, or too long.
        frame(0x09, b""),
        frame(0x08, &1000_u16.to_be_bytes()),
        frame(0x89, &[0; 126]),
        // The middle of nothing, and a message within another.
        frame(0x80, b"{}"),
        [frame(0x01, b"{"), frame(0x81, b"{}")].concat(),
    ];
    for (cause, code) in lost_by(&frames).await {
        assert!(matches!(cause, Disconnect::WebSocket(_)), "{cause:?}");
        assert_eq!(code, 1002, "{cause}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_text_that_is_none_is_told_with_1007() {
    let frames = [frame(0x81, b"\xff"), [frame(0x01, b"caf\xc3"), frame(0x80, b"")].concat()];
    for (cause, code) in lost_by(&frames).await {
        assert!(matches!(cause, Disconnect::WebSocket(_)), "{cause:?}");
        assert_eq!(code, 1007, "{cause}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_more_than_a_message_may_have_is_told_with_1009() {
    let in_parts = [frame(0x01, &[b'x'; 800]), frame(0x80, &[b'x'; 800])].concat();
    for bytes in [frame(0x81, &[b'x'; 2_000]), frame(0x81, &[b'x'; 2_000])[..4].to_vec(), in_parts]
    {
        let server = Server::in_memory();
        let client = builder(&server).max_message_size(1024).build().unwrap();
        let _stream = subscribe(&client, "a");
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        peer.send_raw_frame_bytes(&bytes).await;
        assert_eq!(peer.expect_close().await.0, 1009);
        peer.expect_end().await;
    }
}
