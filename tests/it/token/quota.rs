//! `max_requests_per_hour` over real sockets; its arithmetic is tested where it stands.

use super::{refresh::failed, secret_file, with};
use crate::support::{FakeServer, Reply, Sidecar, echo};

#[test]
fn no_more_token_requests_than_the_quota_allows_and_a_restart_does_not_forget_them() {
    let (folder, key) = (tempfile::tempdir().unwrap(), secret_file(&"k".repeat(32)));
    let provider = FakeServer::start(|_| Reply::text(500, ""));
    let upstream = echo();
    let lines = format!(
        "token_endpoint = \"{}/token\"\nclient_id = \"c\"\nclient_auth = \"none\"\nmax_requests_per_hour = 1\n\
         store = \"{}\"\nstore_key = {{ file = \"{}\" }}",
        provider.url(),
        folder.path().join("store").display(),
        key.path().display()
    );
    let sidecar = Sidecar::run(&with(&lines, &upstream));
    provider.wait_for(1);
    failed(&sidecar, "status");
    let status = sidecar.status();
    assert_eq!(status["quota"]["sent"], 1);
    assert!(status["next_attempt_in_seconds"].as_u64().unwrap() > 3000, "{status}");
    drop(sidecar);
    for _ in 0..2 {
        let sidecar = Sidecar::run(&with(&lines, &upstream));
        failed(&sidecar, "quota");
        let quota = "attache_token_refreshes_total{credential=\"main\",outcome=\"quota\"}";
        assert_eq!(sidecar.metric(quota), 1.0);
    }
    assert_eq!(provider.received().len(), 1);
}
