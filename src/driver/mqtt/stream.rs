//! Bytes to and from a broker, encrypted or not, without ever waiting.

use std::io::{self, Read, Write};
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConnection;

/// A TCP stream, and what encrypts it.
///
/// The library that drives TLS for tokio needs a task's context for every byte; messages are
/// published from where there is none. So it does the handshake, and the rest is done here.
pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, tls: Option<ClientConnection>) -> Self {
        Self {
            tcp,
            tls: tls.map(Box::new),
        }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    /// Reads what is there; nothing at all is the end. With TLS, `WouldBlock` may also say that
    /// something has arrived that is not a whole record yet, or none for us.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.try_read(buffer);
        };
        // First what was decrypted earlier: there is no room for more until it is taken.
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return eof(result),
        }
        tls.read_tls(&mut NonBlocking(&self.tcp))?;
        if let Err(error) = tls.process_new_packets() {
            // It is told why; whether that arrives makes no difference.
            let _ = tls.write_tls(&mut NonBlocking(&self.tcp));
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        eof(tls.reader().read(buffer))
    }

    /// Hands bytes to the kernel, as many as it takes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.try_write(bytes);
        };
        flush(tls, &self.tcp)?;
        let taken = tls.writer().write(bytes)?;
        match flush(tls, &self.tcp) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken), // encrypted, and kept until the kernel takes it
        }
    }

    /// Hands on what was encrypted and could not be written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.tls
            .as_mut()
            .map_or(Ok(()), |tls| flush(tls, &self.tcp))
    }

    /// Whether something encrypted could not be written. TLS has things to say of its own, too.
    pub(super) fn wants_flush(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Says that nothing more will be sent.
    pub(super) fn close_notify(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()
    }
}

fn flush(tls: &mut ClientConnection, tcp: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        if tls.write_tls(&mut NonBlocking(tcp))? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Brokers rarely say goodbye in TLS before they close; MQTT knows its own ends.
fn eof(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        result => result,
    }
}

/// A tokio stream as the TLS library wants it: reading and writing never wait.
struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
