//! One bad document makes the server close the connection (rule 22).

use std::collections::BTreeMap;

use resub::{CloseCode, Disconnect};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_syntax_error_that_closes_the_connection_ends_its_own_stream_and_no_other() {
    for code in [4500, 4400] {
        let server = Server::in_memory();
        let client = client(&server);
        let mut streams: BTreeMap<_, _> =
            (0..101).map(|n| (n, subscribe(&client, &format!("s{n}")))).collect();
        let mut bad = streams.remove(&57).unwrap();

        let (mut peer, mut ids, mut connections) = (connected(&server).await, BTreeMap::new(), 1);
        while ids.len() < 100 || client.stats().live_operations > 100 {
            let Ok(subscribe) = timeout(secs(30), peer.expect_subscribe()).await else { break };
            let name = subscribe.query.split(' ').nth(1).unwrap().to_owned();
            if name == "s57" {
                peer.send_close(code, "Syntax Error: Unexpected Name").await;
                peer = connected(&server).await;
                ids.clear();
                connections += 1;
                assert!(connections <= 11, "it is found within a bounded number of losses");
            } else {
                ids.insert(name, subscribe.id);
            }
        }

        assert!(gap(&mut bad).await.reconnects >= 4);
        let error = end(&mut bad).await;
        assert!(matches!(error, SubscriptionError::Lost(_)), "{error:?}");
        let Some(Disconnect::Closed { code: seen, reason }) = error.disconnect() else {
            panic!("{error:?}")
        };
        assert_eq!((*seen, reason.as_str()), (CloseCode(code), "Syntax Error: Unexpected Name"));

        assert_eq!(client.stats().live_operations, 100, "nobody else ended");
        for (n, stream) in &mut streams {
            peer.next(&ids[&format!("s{n}")], data(*n)).await;
            assert!(gap(stream).await.reconnects >= 1);
            assert_eq!(item(stream).await, *n);
        }
    }
}
