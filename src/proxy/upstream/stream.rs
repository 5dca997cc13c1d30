//! The socket of a connection to an upstream.

use std::{
    future::poll_fn,
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::coop,
};
use tokio_rustls::client::TlsStream;

/// A connection to an upstream.
#[derive(Debug)]
pub(in crate::proxy) enum UpstreamStream {
    /// Plain, to a loopback address unless the operator says otherwise.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamStream {
    /// Whether nothing has come, neither its end nor an answer that nobody has asked for, as far as the runtime has heard. A byte
    /// that has come is lost: the connection is of no use.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Plain(stream) => {
                matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => {
                // Nobody needs to be told what happens to a connection that nobody uses.
                let mut nobody = Context::from_waker(Waker::noop());
                let look = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte)));
                // Also when the task has used up its turn, which would look like silence.
                pin!(coop::unconstrained(look)).poll(&mut nobody).is_pending()
            }
        }
    }
}

impl UpstreamStream {
    /// The socket, where its bytes are those of the upstream.
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl AsFd for UpstreamStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    // HTTP/2 writes the header of a frame and its payload together.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    };
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::timeout};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    /// A task that has done as much in one turn is told that nothing has come.
    fn spend_the_turn() {
        let mut nobody = Context::from_waker(Waker::noop());
        while pin!(coop::consume_budget()).poll(&mut nobody).is_ready() {}
    }

    /// Waits until something comes that is more than what TLS itself has to say.
    async fn heard(stream: &mut UpstreamStream) {
        let hearing = async {
            // Some of what comes may be TLS's own.
            for _ in 0..16 {
                match stream {
                    UpstreamStream::Plain(stream) => stream.readable().await.unwrap(),
                    UpstreamStream::Tls(stream) => stream.get_ref().0.readable().await.unwrap(),
                }
                spend_the_turn();
                if !stream.is_silent() {
                    return true;
                }
            }
            false
        };
        assert!(timeout(Duration::from_secs(10), hearing).await.unwrap(), "what has come is heard");
    }

    #[tokio::test]
    async fn an_upstream_that_speaks_unasked_or_ends_is_not_silent() {
        for ends in [false, true] {
            let (ours, mut theirs) = pair().await;
            let mut stream = UpstreamStream::Plain(ours);
            assert!(stream.is_silent());
            if ends {
                drop(theirs);
            } else {
                theirs.write_all(b"H").await.unwrap();
            }
            heard(&mut stream).await;
        }
    }

    #[tokio::test]
    async fn inside_tls_tickets_are_silence_and_all_else_is_not() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert);
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (acceptor, connector) =
            (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        for ends in [false, true] {
            let (ours, theirs) = pair().await;
            let connecting = connector.connect("localhost".try_into().unwrap(), ours);
            let (ours, theirs) = tokio::join!(connecting, acceptor.accept(theirs));
            let (mut stream, mut theirs) = (UpstreamStream::Tls(Box::new(ours.unwrap())), theirs.unwrap());
            // The tickets of the handshake (RFC 8446 §4.6.1) have come by now.
            assert!(stream.is_silent());
            if ends {
                theirs.shutdown().await.unwrap();
            } else {
                theirs.write_all(b"H").await.unwrap();
            }
            heard(&mut stream).await;
        }
    }
}
