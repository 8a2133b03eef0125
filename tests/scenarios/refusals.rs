//! Which refusals count, and for how long (`refusal_grace`).

use super::*;

/// How a stream ends, with its causes.
async fn ended(mut stream: Subscription<Value>) -> String {
    loop {
        match stream.next().await {
            None => return "completed".into(),
            Some(Err(error)) if error.is_terminal() => return text(&error),
            Some(_) => {}
        }
    }
}

fn server() -> Server {
    let server = Server::in_memory();
    server.set_deadline(secs(100_000));
    server
}

#[tokio::test(start_paused = true)]
async fn what_one_connection_has_proven_holds_for_all_of_the_client() {
    for limited in [false, true] {
        let server = server();
        let client = if limited {
            builder(&server).max_subscriptions_per_connection(items(1)).build().unwrap()
        } else {
            builder(&server).connections(items(2)).build().unwrap()
        };
        let _one = subscribe(&client, "a");
        let mut peer = connected(&server).await;
        peer.expect_subscribe().await;
        let other = ended(subscribe(&client, "b"));
        let deploy = async {
            server.refuse(404, &[], "").await;
            connected(&server).await
        };
        tokio::select! {
            end = other => panic!("{end}"),
            _peer = peer.serve_while(deploy) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_no_time_in_which_the_server_refuses() {
    let server = server();
    let (client, stream, mut peer, _) = live(&server).await;
    peer.serve_while(tokio::time::sleep(secs(60))).await;
    peer.vanish();
    for _ in 0..2 {
        server.refuse(403, &[], "").await;
    }
    settle().await;
    client.pause();
    tokio::time::sleep(secs(8 * 3_600)).await;
    client.resume();
    server.refuse(403, &[], "").await;
    tokio::select! {
        end = ended(stream) => panic!("{end}"),
        _peer = connected(&server) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_nothing_is_subscribed_is_no_time_in_which_the_server_refuses() {
    let server = server();
    let (client, stream, mut peer, _) = live(&server).await;
    peer.serve_while(tokio::time::sleep(secs(60))).await;
    peer.vanish();
    server.refuse(404, &[], "").await;
    drop(stream);
    until(&client, |status| matches!(status, Status::Idle)).await;
    tokio::time::sleep(secs(3_600)).await;
    let stream = subscribe(&client, "b");
    server.refuse(404, &[], "").await;
    tokio::select! {
        end = ended(stream) => panic!("{end}"),
        _peer = connected(&server) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_renewal_is_no_refusal_while_the_old_connection_works() {
    let server = server();
    let (client, stream, mut old, _) = live(&server).await;
    old.serve_while(tokio::time::sleep(secs(60))).await;
    let rotating = client.clone();
    tokio::spawn(async move { rotating.rotate().await });
    old.serve_while(async {
        let begun = Instant::now();
        while begun.elapsed() < secs(360) {
            server.accept().await.expect_init().await.close(4403, "no").await;
        }
    })
    .await;
    old.close(4403, "the token expired").await;
    tokio::select! {
        end = ended(stream) => panic!("{end}"),
        _peer = connected(&server) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_are_in_a_row_only_if_nothing_else_came_between() {
    let server = server();
    let client = client(&server);
    let stream = subscribe(&client, "a");
    for status in [403, 503, 403] {
        server.refuse(status, &[], "").await;
    }
    tokio::select! {
        end = ended(stream) => panic!("{end}"),
        _peer = connected(&server) => {}
    }
}
