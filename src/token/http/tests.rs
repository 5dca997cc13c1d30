//! What a provider may take, and what a proxy on the way may not read.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use super::*;

#[test]
fn a_proxy_is_a_url_without_a_password_and_reads_nothing_that_is_secret() {
    for (url, good) in [
        ("http://proxy.example.com:3128", true),
        ("https://proxy.example.com", true),
        ("http://u:hunter2@proxy.example.com", false),
        ("http://hunter2@proxy.example.com", false),
        ("hunter2:3128", false),
        ("socks5://hunter2", false),
        ("http://", false),
    ] {
        let config = HttpConfig { proxy: Some(url.into()), ..HttpConfig::default() };
        match Http::new(config, Clock::default()) {
            Ok(_) => assert!(good, "{url}"),
            Err(invalid) => {
                assert!(!good && invalid.key() == "http_proxy", "{url}");
                assert!(!invalid.to_string().contains("hunter2"), "{invalid}");
            }
        }
    }
    let (tls, plain) = (Some("https://a.example/t"), Some("http://127.0.0.1/t"));
    assert!(check_proxied(Some("http://p"), &[tls, None]).is_ok() && check_proxied(None, &[plain]).is_ok());
    assert!(check_proxied(Some("http://p"), &[tls, plain]).is_err());
}

#[tokio::test]
async fn a_silent_provider_is_given_up_after_the_time_limit_which_is_10_s() {
    // Accepts, as the kernel does for it, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    assert_eq!(HttpConfig::default().timeout, Duration::from_secs(10));
    let config = HttpConfig { timeout: Duration::from_millis(50), ..HttpConfig::default() };
    let mut http = Http::new(config, Clock::default()).unwrap();
    assert!(matches!(http.send(|client| client.get(&url)).await, Err(FetchError::Timeout)));
}

#[tokio::test]
async fn a_retry_after_with_a_date_is_counted_from_the_date_of_the_answer() {
    let until = "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    // The provider's clock is minutes behind ours, or ahead of it; an answer without a date is measured by ours.
    for (ours, head, seconds) in [
        ("Sun, 06 Nov 1994 08:55:00 GMT", format!("{until}{date}"), 30),
        ("Sun, 06 Nov 1994 08:45:00 GMT", format!("{date}{until}"), 30),
        ("Sun, 06 Nov 1994 08:50:00 GMT", until.to_owned(), 7),
        ("Sun, 06 Nov 1994 08:50:00 GMT", format!("{until}Date: yesterday\r\n"), 7),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let provider = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]).unwrap();
            write!(stream, "HTTP/1.1 429 X\r\n{head}Content-Length: 0\r\n\r\n").unwrap();
        });
        let ours = httpdate::parse_http_date(ours).unwrap();
        let mut http = Http::new(HttpConfig::default(), Clock::with_wall(move || ours)).unwrap();
        let answer = http.send(|client| client.get(&url)).await.ok().unwrap();
        assert_eq!(answer.retry_after, Some(Duration::from_secs(seconds)));
        provider.join().unwrap();
    }
}

#[tokio::test]
async fn no_compression_is_asked_for_and_an_answer_that_has_some_is_told_as_one() {
    for (head, expected) in [
        ("200 X", Ok(200)),
        ("200 X\r\nContent-Encoding: Identity", Ok(200)),
        ("200 X\r\nContent-Encoding: gzip", Err(FetchError::Compressed)),
        ("200 X\r\nContent-Encoding: identity\r\nContent-Encoding: br", Err(FetchError::Compressed)),
        // The status of a failure tells more than its page.
        ("503 X\r\nContent-Encoding: gzip", Ok(503)),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let provider = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            // A secret, as far as anybody knows.
            write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 7\r\n\r\nhunter2").unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap().to_ascii_lowercase()
        });
        let mut http = Http::new(HttpConfig::default(), Clock::default()).unwrap();
        let answer = http.send(|client| client.get(&url)).await;
        assert_eq!(answer.map(|answer| answer.status), expected, "{head}");
        assert!(provider.join().unwrap().contains("\r\naccept-encoding: identity\r\n"));
    }
    let told = FetchError::Compressed.to_string();
    assert!(told.contains("Content-Encoding") && !told.contains("hunter2"), "{told}");
}

#[test]
fn f6_an_endless_answer_grows_the_memory_by_less_than_1_mib() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let provider = thread::spawn(move || {
        for head in ["Transfer-Encoding: chunked", "Content-Length: 1073741824"] {
            let mut stream = listener.accept().unwrap().0;
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
                let mut piece = b"4000\r\n".to_vec();
                piece.resize(6 + 0x4000, b' ');
                piece.extend_from_slice(b"\r\n");
                while stream.write_all(&piece).is_ok() {}
            });
        }
    });
    let mut http = Http::new(HttpConfig::default(), Clock::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..2 {
        let mut answer = None;
        // Everything that reads the answer runs on this thread.
        let counted = allocation_counter::measure(|| {
            answer = Some(runtime.block_on(http.send(|client| client.get(&url))));
        });
        assert!(matches!(answer, Some(Err(FetchError::TooLarge))));
        assert!(counted.bytes_max < 1024 * 1024, "{counted:?}");
        assert!(counted.bytes_max > 64 * 1024, "the counter counts: {counted:?}");
    }
    provider.join().unwrap();
}
