//! A certificate authority for tests, and what is wrong with files.

use std::{cell::Cell, fs};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::{ClientConfig, pki_types::PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::*;

/// One that nobody trusts who does not have its file; its directory is gone with it.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    directory: PathBuf,
    issued: Cell<u32>,
}

/// The certificate and key of a server, in a directory of their own.
pub(crate) struct Files {
    directory: PathBuf,
    pub(crate) certificate: CertificateDer<'static>,
}

/// What a client can show.
pub(crate) struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    serial: u64,
}

impl Authority {
    pub(crate) fn new(test: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        // Who issued a certificate is found by name.
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, test);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let name = format!("tidegate-broker-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(parameters, key),
            certificate: certificate.der().clone(),
            directory,
            issued: Cell::new(0),
        }
    }

    pub(crate) fn path(&self) -> String {
        self.directory.join("ca.pem").display().to_string()
    }

    /// Files of a server of that name, which is also at the loopback address.
    pub(crate) fn server(&self, name: &str) -> Files {
        self.issue(name, |_parameters| {})
    }

    /// As [`Authority::server`], one day.
    pub(crate) fn future(&self, name: &str) -> Files {
        self.issue(name, |parameters| {
            parameters.not_before = date_time_ymd(3001, 2, 3);
            parameters.not_after = date_time_ymd(3002, 2, 3);
        })
    }

    /// As [`Authority::server`], long ago.
    pub(crate) fn expired(&self, name: &str) -> Files {
        self.issue(name, |parameters| {
            parameters.not_after = date_time_ymd(2001, 2, 3);
        })
    }

    fn issue(&self, name: &str, adjust: impl Fn(&mut CertificateParams)) -> Files {
        let names = [name.to_owned(), "127.0.0.1".to_owned()];
        let mut parameters = CertificateParams::new(names).unwrap();
        adjust(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let number = self.issued.replace(self.issued.get() + 1);
        let directory = self.directory.join(number.to_string());
        fs::create_dir_all(&directory).unwrap();
        let files = Files {
            directory,
            certificate: certificate.der().clone(),
        };
        fs::write(files.certificate_path(), certificate.pem()).unwrap();
        fs::write(files.key_path(), key.serialize_pem()).unwrap();
        files
    }

    pub(crate) fn client(&self, common_name: &str) -> Credentials {
        self.client_with(common_name, Vec::new())
    }

    /// As [`Authority::client`], with other names beside.
    pub(crate) fn client_with(&self, common_name: &str, names: Vec<SanType>) -> Credentials {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.subject_alt_names = names;
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, common_name);
        let serial = 1000 + u64::from(self.issued.replace(self.issued.get() + 1));
        parameters.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            serial,
            chain: vec![certificate.der().clone()],
            key: key.into(),
        }
    }

    /// Writes which certificates are good no more; the result is the file's path.
    pub(crate) fn revoke(&self, credentials: &[&Credentials]) -> String {
        let revoked = credentials.iter().map(|credentials| RevokedCertParams {
            serial_number: SerialNumber::from(credentials.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2021, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.directory.join("crl.pem");
        let list = list.signed_by(&self.issuer).unwrap();
        fs::write(&path, list.pem().unwrap()).unwrap();
        path.display().to_string()
    }

    /// TLS of a client that trusts this authority only.
    pub(crate) fn connector(&self, credentials: Option<Credentials>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match credentials {
            Some(Credentials { chain, key, .. }) => {
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

impl Files {
    pub(crate) fn certificate_path(&self) -> String {
        self.directory.join("cert.pem").display().to_string()
    }

    pub(crate) fn key_path(&self) -> String {
        self.directory.join("key.pem").display().to_string()
    }

    /// The section of a listener that uses them.
    pub(crate) fn settings(&self) -> String {
        let (certificate, key) = (self.certificate_path(), self.key_path());
        format!("[listener.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
    }

    /// Puts another's certificate and key into the place of these.
    pub(crate) fn replace_with(&self, other: &Self) {
        fs::copy(other.certificate_path(), self.certificate_path()).unwrap();
        fs::copy(other.key_path(), self.key_path()).unwrap();
    }

    /// TLS of a server that has them.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Identity::load(&self.named()).unwrap().server
    }

    fn named(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate_path().into(),
            key: self.key_path().into(),
            clients: None,
        }
    }
}

#[test]
fn a_key_without_line_breaks_is_refused_and_not_quoted() {
    let authority = Authority::new("one-line");
    let files = authority.server("broker");
    let key = fs::read_to_string(files.key_path()).unwrap();
    for damaged in [
        key.replace('\n', ""),
        key.replace('\n', "\\n"),
        key.replace("END", "EN"),
    ] {
        fs::write(files.key_path(), &damaged).unwrap();
        let error = private_key(Path::new(&files.key_path())).unwrap_err();
        assert!(
            matches!(error, PemError::Pem { .. } | PemError::NoKey { .. }),
            "{error:?}"
        );
        let secret: Vec<u8> = key.lines().nth(1).unwrap().bytes().take(16).collect();
        let told = format!("{error} {error:?}");
        assert!(
            !told.contains(std::str::from_utf8(&secret).unwrap()),
            "{told}"
        );
        let as_numbers = format!("{secret:?}");
        assert!(
            !told.contains(as_numbers.trim_matches(['[', ']'])),
            "{told}"
        );
        assert!(std::error::Error::source(&error).is_none());
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new("files");
    let server = authority.server("localhost");
    let load = |files: &TlsFiles| Identity::load(files).map(|identity| identity.validity);
    assert!(load(&server.named()).unwrap().is_some());

    let mut files = server.named();
    files.certificate = server.key_path().into();
    let error = load(&files).unwrap_err();
    assert!(matches!(
        &error,
        TlsError::Pem(PemError::NoCertificate { path }) if *path == files.certificate
    ));

    let mut files = server.named();
    files.key = server.certificate_path().into();
    let error = load(&files).unwrap_err();
    assert!(
        matches!(&error, TlsError::Pem(PemError::NoKey { path }) if *path == files.key),
        "{error:?}"
    );

    let mut files = server.named();
    files.key = authority.server("other").key_path().into();
    let error = load(&files).unwrap_err();
    assert!(matches!(error, TlsError::WrongKey { .. }), "{error:?}");

    let mut files = server.named();
    files.clients = Some(ClientAuthority {
        file: "/nowhere/ca.pem".into(),
        demand: Demand::Required,
        revoked: None,
        names: None,
    });
    let error = load(&files).unwrap_err();
    assert!(
        matches!(error, TlsError::Pem(PemError::Read { .. })),
        "{error:?}"
    );

    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(server.certificate_path(), text).unwrap();
    let error = load(&server.named()).unwrap_err();
    let path = server.named().certificate;
    assert!(matches!(&error, TlsError::Unusable { path: told, .. } if *told == path));
}

#[test]
fn certificate_whose_time_is_not_now_is_usable_and_told() {
    let authority = Authority::new("expired");
    let files = authority.expired("localhost").named();
    assert!(Identity::load(&files).is_ok());
    assert!(matches!(check(&files), Err(TlsError::Expired { .. })));
    let files = authority.future("localhost").named();
    assert!(Identity::load(&files).is_ok());
    assert!(matches!(check(&files), Err(TlsError::NotYet { .. })));
}
