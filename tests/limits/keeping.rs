//! What is taken while a connection is replaced, and what is kept afterwards of that and of large
//! items.

use super::{
    hostile::{CONTINUATION, FIN, Line, TEXT},
    *,
};

/// The next connection, acknowledged, and the ids of so many operations on it.
async fn subscribed(server: &mut Hostile, operations: usize) -> (Line, Vec<String>) {
    let mut line = server.accept().await;
    line.upgrade().await;
    line.read_frame().await;
    line.text(r#"{"type":"connection_ack"}"#).await;
    let mut ids = Vec::new();
    for _ in 0..operations {
        let message: Value = serde_json::from_str(&line.read_frame().await).unwrap();
        assert_eq!(message["type"], "subscribe");
        ids.push(message["id"].as_str().unwrap().to_owned());
    }
    (line, ids)
}

/// An item whose data is a string of so many bytes.
async fn send_item(line: &mut Line, id: &str, bytes: usize) {
    let begin = format!(r#"{{"id":"{id}","type":"next","payload":{{"data":""#);
    line.repeated(&begin, "x", bytes, r#""}}"#).await;
}

/// Items that are read at once: more bytes than the socket reads at once.
async fn go_on(line: &mut Line, ids: &[String], streams: &mut [Subscription<Value>]) {
    for nth in 0..1_000 {
        let nth = nth % streams.len();
        futures::join!(send_item(line, &ids[nth], 10), item(&mut streams[nth]));
    }
}

/// Reads everything that is there.
async fn read_all(streams: &mut [Subscription<Value>]) {
    for stream in streams {
        while let Ok(event) = timeout(Duration::from_millis(1), stream.next()).await {
            event.unwrap().unwrap();
        }
    }
}

#[test]
fn a_flood_while_a_connection_is_replaced_takes_a_bounded_amount_and_most_is_given_back() {
    // What is held, and a message while it is received; then the items wait for the reader instead.
    // 2 MiB are buffers that are used again.
    for bytes in [1, 100, 1_000, 60_000, 1_000_000, 4_000_000, 15_000_000] {
        within(16 * MIB + 3 * bytes + 2 * MIB + BASE, flood(1, bytes, 80 * MIB));
    }
    // Many streams share the bound: here all is held until the connection before is gone.
    for bytes in [1, 100, 1_000, 60_000, 1_000_000] {
        within(16 * MIB + 3 * bytes + 2 * MIB + BASE, flood(100, bytes, 16 * MIB));
    }
}

/// So many bytes come on the new connection of a handover, in items of this size.
async fn flood(streams: usize, bytes: usize, total: usize) {
    let mut server = Hostile::new();
    let (client, first) = client(&server);
    let mut all = vec![first];
    all.extend((1..streams).map(|_| subscribe(&client)));
    let (mut old, old_ids) = subscribed(&mut server, streams).await;
    go_on(&mut old, &old_ids, &mut all).await;
    let before = MEMORY.current_usage();
    let (rotated, (mut new, new_ids)) =
        futures::join!(client.rotate(), subscribed(&mut server, streams));
    rotated.unwrap();
    for nth in 0..total / (bytes + 220) {
        send_item(&mut new, &new_ids[nth % streams], bytes).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(old);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waiting = client.stats().queued_items;
    assert!(waiting > 0, "nothing was held");
    read_all(&mut all).await;
    go_on(&mut new, &new_ids, &mut all).await;
    let kept = MEMORY.current_usage().saturating_sub(before);
    println!("{streams} streams, {bytes} bytes: kept {} KiB", kept / KIB);
    // A queue keeps its room for as many entries as it may have.
    assert!(kept <= 2 * MIB + streams * 100 * KIB, "{kept} bytes are kept");
}

#[test]
fn a_large_message_leaves_nothing_behind_once_others_have_come() {
    // Each larger than the buffer of the one before.
    for sizes in [&[16_700_000_usize][..], &[2_000_000, 3_000_000], &[15_900_000, 16_700_000]] {
        within(4 * 16 * MIB + BASE, async {
            let mut server = Hostile::new();
            let (_client, stream) = client(&server);
            let mut all = [stream];
            let (mut line, ids) = subscribed(&mut server, 1).await;
            let before = MEMORY.current_usage();
            for size in sizes {
                futures::join!(send_item(&mut line, &ids[0], *size), item(&mut all[0]));
            }
            go_on(&mut line, &ids, &mut all).await;
            let kept = MEMORY.current_usage().saturating_sub(before);
            assert!(kept <= 512 * KIB, "{kept} bytes are kept of {sizes:?}");
        });
    }
    // What is in several frames is put together elsewhere, and the buffer of the largest is kept.
    within(4 * 16 * MIB + BASE, async {
        let mut server = Hostile::new();
        let (_client, stream) = client(&server);
        let mut all = [stream];
        let (mut line, ids) = subscribed(&mut server, 1).await;
        let before = MEMORY.current_usage();
        let half = "x".repeat(4 * MIB);
        let begin = format!(r#"{{"id":"{}","type":"next","payload":{{"data":"{half}"#, ids[0]);
        let send = async {
            line.frame(TEXT, begin.as_bytes()).await;
            line.frame(FIN | CONTINUATION, format!(r#"{half}"}}}}"#).as_bytes()).await;
        };
        futures::join!(send, item(&mut all[0]));
        drop((begin, half));
        go_on(&mut line, &ids, &mut all).await;
        let kept = MEMORY.current_usage().saturating_sub(before);
        println!("kept of two frames {} KiB", kept / KIB);
        assert!(kept <= 2 * 4 * MIB + 512 * KIB, "{kept} bytes are kept");
    });
}

#[test]
fn a_large_item_is_not_kept_for_its_position_once_others_have_come() {
    const STREAMS: usize = 20;
    for resumes in [false, true] {
        within(STREAMS * 100 * KIB + 6 * MIB + BASE, async {
            let mut server = Hostile::new();
            let client = Client::builder("ws://hostile/").dialer(server.dialer()).seed(1);
            let client = client.build().unwrap();
            let mut all: Vec<_> = (0..STREAMS)
                .map(|_| {
                    let options = client.subscription_to(Request::new("subscription { a }"));
                    let options = if resumes {
                        options.resume_with(|_: &Value, _: &mut Value| {})
                    } else {
                        options
                    };
                    options.start().unwrap()
                })
                .collect();
            let (mut line, ids) = subscribed(&mut server, STREAMS).await;
            let before = MEMORY.current_usage();
            // A state first and small changes then, as many feeds do.
            for (stream, id) in all.iter_mut().zip(&ids) {
                futures::join!(send_item(&mut line, id, 1_000_000), item(stream));
                futures::join!(send_item(&mut line, id, 10), item(stream));
            }
            go_on(&mut line, &ids, &mut all).await;
            let kept = MEMORY.current_usage().saturating_sub(before);
            println!("resumes: {resumes}, kept {} KiB", kept / KIB);
            assert!(kept <= 2 * MIB + STREAMS * 10 * KIB, "{kept} bytes are kept");
        });
    }
}
