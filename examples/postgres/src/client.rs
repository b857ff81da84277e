//! A client of PostgreSQL, as small as this example needs it: one query after another, all values as text.
//!
//! A connection goes `startup -> (password, or SCRAM-SHA-256) -> ready`, and each query `parse, bind, execute, sync ->
//! rows -> ready`.

use std::{fmt, io};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend::{self, BindError};

use crate::connection::Connection;
use crate::settings::Settings;

/// The longest message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Columns, `None` where they are null.
pub(crate) type Row = Vec<Option<String>>;

/// See the module.
pub(crate) struct Client {
    connection: Connection,
    received: BytesMut,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Error {
    /// The server refuses. The connection goes on.
    Refused {
        code: String,
        message: String,
    },
    /// The connection, or what came by it.
    Io(io::Error),
    Settings(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused { code, message } => write!(f, "the database refuses ({code}): {message}"),
            Error::Io(err) => write!(f, "the database can't be reached: {err}"),
            Error::Settings(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for Error {
    fn from(err: io::Error) -> Error {
        Error::Io(err)
    }
}

impl Client {
    pub(crate) fn connect(settings: &Settings) -> Result<Client, Error> {
        let connection = Connection::open(&settings.host, settings.port)?;
        let mut client = Client { connection, received: BytesMut::new() };
        let parameters = [("user", settings.user.as_str()), ("database", &settings.database)];
        client.send(|bytes| frontend::startup_message(parameters, bytes))?;
        client.authenticate(&settings.password)?;
        loop {
            match client.receive()? {
                Message::ReadyForQuery(_) => return Ok(client),
                Message::ErrorResponse(body) => return Err(refused(&body)?),
                // Settings of the server, and a key to cancel queries with.
                _ => {}
            }
        }
    }

    fn authenticate(&mut self, password: &str) -> Result<(), Error> {
        match self.receive()? {
            Message::AuthenticationOk => Ok(()),
            Message::AuthenticationCleartextPassword => {
                self.send(|bytes| frontend::password_message(password.as_bytes(), bytes))?;
                self.expect(|message| matches!(message, Message::AuthenticationOk))
            }
            Message::AuthenticationSasl(body) => {
                if !body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256))? {
                    return Err(unexpected("no way to log in that this client knows"));
                }
                self.scram(password)
            }
            Message::ErrorResponse(body) => Err(refused(&body)?),
            _ => Err(unexpected("no way to log in that this client knows")),
        }
    }

    /// Neither side tells the other the password.
    fn scram(&mut self, password: &str) -> Result<(), Error> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        self.send(|bytes| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), bytes))?;
        match self.receive()? {
            Message::AuthenticationSaslContinue(body) => scram.update(body.data())?,
            Message::ErrorResponse(body) => return Err(refused(&body)?),
            _ => return Err(unexpected("no answer to the first message of SCRAM")),
        }
        self.send(|bytes| frontend::sasl_response(scram.message(), bytes))?;
        match self.receive()? {
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data())?,
            Message::ErrorResponse(body) => return Err(refused(&body)?),
            _ => return Err(unexpected("no end of SCRAM")),
        }
        self.expect(|message| matches!(message, Message::AuthenticationOk))
    }

    /// Whether the server is still there, as far as one can know.
    pub(crate) fn is_alive(&self) -> bool {
        self.received.is_empty() && self.connection.is_quiet()
    }

    pub(crate) fn query(&mut self, sql: &str, parameters: &[&str]) -> Result<Vec<Row>, Error> {
        self.send(|bytes| {
            frontend::parse("", sql, [], bytes)?;
            let text = |value: &&str, bytes: &mut BytesMut| {
                bytes.extend_from_slice(value.as_bytes());
                Ok(IsNull::No)
            };
            frontend::bind("", "", [0], parameters, text, [0], bytes).map_err(|err| match err {
                BindError::Conversion(err) => io::Error::other(err),
                BindError::Serialization(err) => err,
            })?;
            frontend::execute("", 0, bytes)?;
            frontend::sync(bytes);
            Ok(())
        })?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            match self.receive()? {
                Message::DataRow(body) => rows.push(row(&body)?),
                Message::ErrorResponse(body) => failed = Some(refused(&body)?),
                Message::ReadyForQuery(_) => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Error> {
        let mut bytes = BytesMut::new();
        write(&mut bytes)?;
        Ok(self.connection.write(&bytes)?)
    }

    fn expect(&mut self, is_it: impl FnOnce(&Message) -> bool) -> Result<(), Error> {
        match self.receive()? {
            Message::ErrorResponse(body) => Err(refused(&body)?),
            message if is_it(&message) => Ok(()),
            _ => Err(unexpected("another message than the one that was due")),
        }
    }

    /// The next message. Notices are passed over.
    fn receive(&mut self) -> Result<Message, Error> {
        loop {
            match Message::parse(&mut self.received)? {
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Some(message) => return Ok(message),
                None if self.received.len() > MESSAGE_BYTES_MAX => {
                    return Err(unexpected("a message of more than 16 MiB"));
                }
                None => match self.connection.read()? {
                    bytes if bytes.is_empty() => {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    bytes => self.received.extend_from_slice(&bytes),
                },
            }
        }
    }
}

fn row(body: &DataRowBody) -> Result<Row, Error> {
    let values = body
        .ranges()
        .map(|range| Ok(range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned())));
    Ok(values.collect()?)
}

fn refused(body: &ErrorResponseBody) -> Result<Error, Error> {
    let (mut code, mut message) = (String::new(), String::new());
    let mut fields = body.fields();
    while let Some(field) = fields.next()? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value,
            b'M' => message = value,
            _ => {}
        }
    }
    Ok(Error::Refused { code, message })
}

fn unexpected(what: &str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}
