//! `attache demo`: everything in one process, nothing to set up.
//!
//! 1. The `provider` and the `upstream` listen on ports of their own, on a thread of their own.
//! 2. A real configuration is written to a temporary folder, with the secret in a file, and loaded as `attache run` would.
//! 3. The real sidecar is built and run from it; only its peers are embedded.
//! 4. The `traffic` asks for something every second and tells which token each request carried; with `--once`, one round
//!    trip is shown before and after.

mod provider;
mod traffic;
mod upstream;

use std::{
    fs, io,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use clap::Args;

use super::{Failure, output, run, signals};
use crate::{app, config, shutdown};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Make one round trip, show the request before and after, and exit
    #[arg(long)]
    once: bool,
    /// Where the sidecar listens; port 0 means any
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    listen: String,
    /// Where its health and metrics are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7090")]
    admin: String,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::other(format!("the demo cannot start: {error}"));
    let folder = Folder::create().map_err(failed)?;
    let peers = Peers::start(arguments.once).map_err(failed)?;
    let any = "127.0.0.1:0";
    let (listen, admin) =
        if arguments.once { (any, any) } else { (arguments.listen.as_str(), arguments.admin.as_str()) };
    let (text, shown) = peers.configuration(&folder, listen, admin, arguments.once);
    folder.write("secret", peers.provider.secret()).map_err(failed)?;
    let file = folder.write("attache.toml", &text).map_err(failed)?;
    // The environment is left out: a demo is the same everywhere.
    let config::Loaded { config, origin, .. } = config::load_with_origin(Some(&file), [])?;
    // Kept until the end: dropping it ends the log.
    let _log = config.log.install().map_err(|mistake| origin.explain(mistake.under("log")))?;
    let bound = app::build(&config).map_err(|error| match error {
        app::BuildError::Invalid(mistake) => Failure::from(origin.explain(mistake)),
        app::BuildError::Bind(error) if error.source.kind() != io::ErrorKind::AddrInUse => {
            run::not_bound(&error)
        }
        app::BuildError::Bind(error) => Failure::other(error.to_string())
            .hint("something else listens there; choose another port: `attache demo --listen 127.0.0.1:0 --admin 127.0.0.1:0`"),
    })?;
    let (Some(proxy), Some(admin)) = (bound.proxy_addresses[0].tcp(), bound.admin_address.tcp()) else {
        return Err(Failure::other("the demo listens on TCP ports only"));
    };
    let readiness = bound.readiness.clone();
    let (trigger, shutdown) = shutdown::channel();
    let hangup = signals::listen(trigger.clone()).map_err(failed)?;
    let (mover, watcher) = (trigger.clone(), shutdown.clone());
    let sidecar = thread::Builder::new()
        .name("sidecar".into())
        .spawn(move || bound.run(&mover, &watcher))
        .map_err(failed)?;
    let told = if arguments.once {
        super::block_on(traffic::once(proxy, &readiness)).and_then(|shown| shown)
    } else {
        output::line(&welcome(&shown, proxy, admin)).and_then(|()| {
            super::block_on(async {
                tokio::select! {
                    told = traffic::flow(proxy, &readiness, shutdown) => told,
                    // Its configuration is its own and never changes: the terminal is closed.
                    () = hangup.notified() => Ok(()),
                }
            })
            .and_then(|told| told)
        })
    };
    // However it ended, the sidecar does too; what others have asked it for may finish.
    trigger.advance(if arguments.once { shutdown::Stage::Now } else { shutdown::Stage::Leaving });
    let ended = sidecar.join().map_err(|_| Failure::other("the sidecar met a bug"))?;
    ended.map_err(failed)?;
    told
}

fn welcome(shown: &str, proxy: std::net::SocketAddr, admin: std::net::SocketAddr) -> String {
    format!(
        "attaché demo: an identity provider, an echo upstream, and the sidecar between them. Its configuration:\n\n{shown}\n\
         Try it:\n\n\
         \x20 curl http://{proxy}/orders                 the upstream shows what it received\n\
         \x20 curl -d hello http://{proxy}/orders        a body\n\
         \x20 curl -H 'Authorization: Bearer mine' http://{proxy}/orders\n\
         \x20 curl http://{admin}/status                 credentials and routes\n\
         \x20 curl http://{admin}/metrics\n\n\
         Tokens last {} seconds and are refreshed ahead. Ctrl-C ends it.\n",
        provider::LIFETIME
    )
}

/// The embedded peers, on a thread of their own.
struct Peers {
    provider: Arc<provider::Provider>,
    upstream: std::net::SocketAddr,
}

impl Peers {
    fn start(quiet: bool) -> io::Result<Self> {
        let listen = || {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            io::Result::Ok((listener.local_addr()?, listener))
        };
        let ((issuer, provider_port), (upstream, upstream_port)) = (listen()?, listen()?);
        let provider = Arc::new(provider::Provider::new(format!("http://{issuer}"), quiet)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = Arc::clone(&provider);
        thread::Builder::new().name("peers".into()).spawn(move || {
            runtime.block_on(async {
                let verifier = served.verifier();
                let provider = serve(provider_port, provider::router(served));
                let upstream = serve(upstream_port, upstream::router(verifier));
                // They end with the process.
                let _ = tokio::join!(provider, upstream);
            });
        })?;
        Ok(Self { provider, upstream })
    }

    /// The configuration, and the part of it that is worth showing.
    fn configuration(&self, folder: &Folder, listen: &str, admin: &str, quiet: bool) -> (String, String) {
        let (issuer, id) = (self.provider.issuer(), provider::CLIENT_ID);
        let secret = folder.0.join("secret");
        let shown = format!(
            "  [credentials.demo]\n  type = \"client_credentials\"\n  issuer = \"{issuer}\"\n  client_id = \"{id}\"\n  \
             client_secret = {{ file = \"{}\" }}\n\n  [routes.demo]\n  upstream = \"http://{}\"\n  credential = \"demo\"\n",
            secret.display(),
            self.upstream
        );
        let filter = if quiet { "warn" } else { "attache=info" };
        let text = format!(
            "[log]\nfilter = \"{filter}\"\n[proxy]\nlisten = \"{listen}\"\n[admin]\nlisten = \"{admin}\"\n{shown}"
        );
        (text, shown)
    }
}

async fn serve(listener: TcpListener, router: axum::Router) -> io::Result<()> {
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

/// A folder that only this user can read, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
        let path = std::env::temp_dir().join(format!("attache-demo-{:016x}", u64::from_ne_bytes(random)));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, content.as_bytes())?;
        Ok(path)
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed holds a secret that nobody knows any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}
