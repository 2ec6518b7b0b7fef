//! The same update from stock web servers: nothing of ours is needed on the server's side.

use core::net::SocketAddr;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Device, Recipe, Settings, eventually, noise};

/// A web server with its own configuration in a folder of its own; ended by its id when dropped.
struct WebServer {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl WebServer {
    /// Starts a program in the foreground; `configure` writes its configuration and returns the
    /// arguments.
    fn start(program: &str, configure: impl FnOnce(&Path, SocketAddr) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open_to_everybody(folder.path());
        for name in ["www", "www/scripts", "www/firmware", "www/backups", "run"] {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            open_to_everybody(&path);
        }
        // The servers cannot be told to choose a port; this one was free a moment ago.
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let arguments = configure(folder.path(), address);
        let child = Command::new(find(program))
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            address,
            folder,
        };
        eventually("the web server", || {
            assert_eq!(server.child.try_wait().unwrap(), None, "{program} ended");
            TcpStream::connect(address).ok()
        });
        server
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("www").join(path)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for WebServer {
    /// The first process ends its workers when it is asked to; killed, it would leave them.
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        if !asked {
            let _: std::io::Result<()> = self.child.kill();
        }
        let _: std::io::Result<std::process::ExitStatus> = self.child.wait();
    }
}

/// Workers of these servers run as other users where the test runs as root.
fn open_to_everybody(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// Servers lie in `/usr/sbin`, which is not on everybody's path.
fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    let found = folders.iter().map(|folder| folder.join(program));
    let found = found.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed"))
}

/// A backup by PUT, new firmware by ranges, restart, confirm, and nothing more.
fn updates_a_device(server: &WebServer) {
    let recipe = Recipe::new("13.8001");
    recipe.pack(&server.at("firmware/ip1200.bin"));
    open_to_everybody(&server.at("firmware/ip1200.bin"));
    let (firmware, backup) = (server.url("firmware/"), server.url("backups/#h.txt"));
    let script = format!(
        "mod cmd UP1 check ser 77\r\n\
         mod cmd UP0 scfg {backup} nop s-1\r\n\
         mod cmd UP0 prot {firmware} ser 138001\r\n\
         iresetn\r\n"
    );
    std::fs::write(server.at("scripts/update-ip1200.htm"), script).unwrap();
    let mut device = Device::started(
        &server.url("scripts/"),
        &Settings {
            host: r#"config = ["/bin/echo", "config change IP0 /addr 10.0.0.2"]"#,
            ..Settings::default()
        },
    );
    let old = device.slot_hash('a');
    device.wait_for_reset(1);
    assert_eq!(device.slot_hash('a'), old);
    let slot = std::fs::read(device.slot_path('b')).unwrap();
    assert!(slot.starts_with(&noise(recipe.content)));
    let stored = std::fs::read_to_string(server.at("backups/IP1200-03-0d-f0.txt")).unwrap();
    assert_eq!(stored, "config change IP0 /addr 10.0.0.2\n");

    assert_eq!(device.boot().to_string(), "B");
    device.wait_for_line("this serial has been run, the rest is skipped");
    let status = device.wait_for_poll();
    let prot = &status["components"][0];
    assert_eq!(
        (&prot["build"], &prot["confirmed"]),
        (&"13.8001".into(), &"B".into())
    );
    assert_eq!(status["poll"]["result"], "ok");
    assert_eq!(device.resets(), 1);
}

#[test]
#[ignore = "needs nginx (package nginx-light)"]
fn a_stock_nginx_updates_a_device() {
    let server = WebServer::start("nginx", |folder, address| {
        let root = folder.display();
        let config = format!(
            "daemon off;\n\
             pid {root}/run/nginx.pid;\n\
             error_log stderr warn;\n\
             worker_processes 1;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
               access_log off;\n\
               client_body_temp_path {root}/run/body;\n\
               proxy_temp_path {root}/run/proxy;\n\
               fastcgi_temp_path {root}/run/fastcgi;\n\
               uwsgi_temp_path {root}/run/uwsgi;\n\
               scgi_temp_path {root}/run/scgi;\n\
               server {{\n\
                 listen {address};\n\
                 root {root}/www;\n\
                 location /backups/ {{ dav_methods PUT; }}\n\
               }}\n\
             }}\n"
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        vec![
            "-p".to_owned(),
            root.to_string(),
            "-e".to_owned(),
            "stderr".to_owned(),
            "-c".to_owned(),
            path.display().to_string(),
        ]
    });
    updates_a_device(&server);
}

#[test]
#[ignore = "needs apache2 (package apache2)"]
fn a_stock_apache_updates_a_device() {
    let server = WebServer::start("apache2", |folder, address| {
        let root = folder.display();
        let modules = "/usr/lib/apache2/modules";
        let config = format!(
            "ServerRoot {root}\n\
             ServerName 127.0.0.1\n\
             Listen {address}\n\
             PidFile {root}/run/httpd.pid\n\
             DefaultRuntimeDir {root}/run\n\
             ErrorLog /dev/stderr\n\
             LogLevel warn\n\
             LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
             LoadModule authz_core_module {modules}/mod_authz_core.so\n\
             LoadModule dav_module {modules}/mod_dav.so\n\
             LoadModule dav_fs_module {modules}/mod_dav_fs.so\n\
             User www-data\n\
             Group www-data\n\
             DavLockDB {root}/run/dav\n\
             DocumentRoot {root}/www\n\
             <Directory {root}/www>\n\
             Require all granted\n\
             </Directory>\n\
             <Directory {root}/www/backups>\n\
             Dav On\n\
             </Directory>\n"
        );
        let path = folder.join("httpd.conf");
        std::fs::write(&path, config).unwrap();
        vec![
            "-f".to_owned(),
            path.display().to_string(),
            "-D".to_owned(),
            "FOREGROUND".to_owned(),
        ]
    });
    updates_a_device(&server);
}
