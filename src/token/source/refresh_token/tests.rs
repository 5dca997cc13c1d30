//! Which family goes on when the operator changes the token in the configuration.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use super::*;

/// A provider that rotates, and has been asked for something.
#[derive(Default)]
struct Provider {
    current: String,
    presented: Vec<String>,
    down: bool,
}

struct Bench {
    folder: tempfile::TempDir,
    provider: Arc<Mutex<Provider>>,
    source: RefreshToken,
    store: Option<Store>,
}

fn serve(provider: Arc<Mutex<Provider>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut reader, mut line, mut length) = (BufReader::new(&stream), String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let mut provider = provider.lock().unwrap();
            let shown = form_urlencoded::parse(&body).find(|(key, _)| key == "refresh_token").unwrap().1;
            provider.presented.push(shown.to_string());
            let (status, answer) = if provider.down {
                (503, String::new())
            } else if shown != provider.current {
                (400, "{\"error\":\"invalid_grant\"}".to_owned())
            } else {
                provider.current = format!("refresh-{}", provider.presented.len() + 1);
                let rotated = &provider.current;
                (200, format!("{{\"access_token\":\"t\",\"refresh_token\":\"{rotated}\",\"expires_in\":60}}"))
            };
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length:");
            write!(stream, "{head} {}\r\n\r\n{answer}", answer.len()).unwrap();
        }
    });
    url
}

async fn bench(stored: bool) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let provider = Arc::new(Mutex::new(Provider { current: "first".to_owned(), ..Provider::default() }));
    let initial = folder.path().join("initial");
    fs::write(&initial, "first").unwrap();
    fs::set_permissions(&initial, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = format!(
        "{{\"client_id\":\"c\",\"client_auth\":\"none\",\"token_endpoint\":\"{}\",\"refresh_token\":{{\"file\":\"{}\"}}}}",
        serve(Arc::clone(&provider)),
        initial.display()
    );
    let source = RefreshToken::build(&serde_json::from_str(&config).unwrap(), Clock::default()).unwrap();
    let mut store = stored.then(|| Store::build(&folder.path().join("store"), None).unwrap());
    if let Some(store) = &mut store {
        store.open().await.unwrap();
    }
    Bench { folder, provider, source, store }
}

impl Bench {
    async fn fetch(&mut self) -> bool {
        self.source.fetch(self.store.as_mut()).await.is_ok()
    }

    /// The operator writes this, and it is tried.
    async fn fetch_with(&mut self, initial: &str) -> bool {
        fs::write(self.folder.path().join("initial"), initial).unwrap();
        assert!(self.source.look());
        self.fetch().await
    }

    fn is_down(&self, down: bool) {
        self.provider.lock().unwrap().down = down;
    }

    fn presented(&self) -> Vec<String> {
        self.provider.lock().unwrap().presented.clone()
    }
}

#[tokio::test]
async fn a_token_that_is_put_back_before_another_was_any_good_is_not_presented_a_second_time() {
    for stored in [false, true] {
        let mut bench = bench(stored).await;
        assert!(bench.fetch().await);
        bench.is_down(true);
        for other in ["second", "third"] {
            assert!(!bench.fetch_with(other).await);
        }
        bench.is_down(false);
        assert!(bench.fetch_with("first").await, "{:?}", bench.presented());
        assert!(bench.fetch().await);
        assert_eq!(bench.presented(), ["first", "second", "third", "refresh-2", "refresh-5"]);
    }
}

#[tokio::test]
async fn a_family_that_was_refused_is_asked_for_and_not_its_first_token() {
    let mut bench = bench(true).await;
    assert!(bench.fetch().await);
    bench.provider.lock().unwrap().current.clear();
    assert!(!bench.fetch().await);
    bench.is_down(true);
    assert!(!bench.fetch_with("second").await);
    assert!(!bench.fetch_with("first").await);
    assert_eq!(bench.presented(), ["first", "refresh-2", "second", "refresh-2"]);
}

#[tokio::test]
async fn a_family_that_went_on_in_place_of_two_tokens_does_so_whichever_is_put_back() {
    let mut bench = bench(false).await;
    assert!(bench.fetch().await);
    assert!(!bench.fetch_with("refused").await);
    assert!(bench.fetch().await);
    bench.is_down(true);
    assert!(!bench.fetch_with("third").await);
    bench.is_down(false);
    for back in ["refused", "first"] {
        assert!(bench.fetch_with(back).await);
    }
    assert_eq!(bench.presented(), ["first", "refused", "refresh-2", "third", "refresh-4", "refresh-6"]);
}
