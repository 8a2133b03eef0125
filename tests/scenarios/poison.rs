//! One bad document makes the server close the connection (rule 22).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use resub::{CloseCode, Disconnect};
use tokio::sync::watch;

use super::*;

/// What a server that closes connections over the document `bad` was asked, and when.
#[derive(Default)]
struct Seen {
    /// When the bad document arrived.
    bad: Vec<Instant>,
    connections: usize,
}

/// Serves every connection until it ends. The bad document closes it with this code; every other
/// operation gets an item if the server is not silent, and one whenever there is news.
async fn serve(
    server: Server,
    code: u16,
    is_silent: bool,
    seen: Arc<Mutex<Seen>>,
    news: watch::Receiver<u64>,
) {
    loop {
        let mut peer = connected(&server).await;
        let (seen, mut news) = (Arc::clone(&seen), news.clone());
        seen.lock().unwrap().connections += 1;
        tokio::spawn(async move {
            let mut ids = BTreeMap::<String, String>::new();
            loop {
                let message = tokio::select! {
                    message = peer.serve_pings() => message,
                    Ok(()) = news.changed() => {
                        let n = *news.borrow_and_update();
                        for id in ids.values() {
                            peer.next(id, data(n)).await;
                        }
                        continue;
                    }
                };
                let Some(message) = message else { return };
                let id = message["id"].as_str().unwrap_or_default().to_owned();
                match message["payload"]["query"].as_str() {
                    Some(document) if document.contains("bad") => {
                        seen.lock().unwrap().bad.push(Instant::now());
                        return peer.close(code, "Syntax Error: Unexpected Name").await;
                    }
                    Some(document) => {
                        if !is_silent {
                            peer.next(&id, data(0)).await;
                        }
                        ids.insert(document.to_owned(), id);
                    }
                    None => ids.retain(|_, known| *known != id),
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_that_closes_the_connection_ends_its_own_stream_and_is_one_gap_for_the_others() {
    for (code, is_silent, siblings, within) in
        [(4500, false, 100_u64, 3), (4400, false, 100, 3), (4500, true, 59, 8), (4400, true, 59, 8)]
    {
        let seen = Arc::<Mutex<Seen>>::default();
        let (publish, news) = watch::channel(0);
        let server = Server::in_memory();
        let client = client(&server);
        tokio::spawn(serve(server, code, is_silent, Arc::clone(&seen), news));
        let mut streams: Vec<_> =
            (0..siblings).map(|n| subscribe(&client, &format!("s{n}"))).collect();
        if !is_silent {
            for stream in &mut streams {
                assert_eq!(item(stream).await, 0);
            }
        }
        let mut bad = subscribe(&client, "bad");
        let error = loop {
            match event(&mut bad).await {
                Some(Ok(Event::Gap(_))) => {}
                Some(Err(error)) => break error,
                other => panic!("{other:?}"),
            }
        };
        let took = seen.lock().unwrap().bad[0].elapsed();
        assert!(took <= secs(within), "{took:?}, {code}, silent: {is_silent}");
        assert!(matches!(error, SubscriptionError::Lost(_)), "{error:?}");
        let Some(Disconnect::Closed { code: closed, reason }) = error.disconnect() else {
            panic!("{error:?}")
        };
        assert_eq!((*closed, reason.as_str()), (CloseCode(code), "Syntax Error: Unexpected Name"));

        assert_eq!(client.stats().live_operations, siblings, "nobody else ended");
        tokio::time::sleep(secs(5)).await;
        publish.send(1).unwrap();
        for stream in &mut streams {
            assert_eq!(gap(stream).await.reconnects, 1, "{code}, silent: {is_silent}");
            if !is_silent {
                assert_eq!(item(stream).await, 0);
            }
            assert_eq!(item(stream).await, 1);
        }
        // The first, the one in its place, and one for each of two trials.
        assert_eq!(seen.lock().unwrap().connections, 4);
    }
}
