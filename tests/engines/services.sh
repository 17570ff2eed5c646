# tests/engines/services.sh - servers as users run them: a volume, a published port, stop and start, kill -9. Sourced by an engine's cases.
# shellcheck shell=bash disable=SC2016,SC2034
# Redis, nginx and PostgreSQL of Debian in one image. Engines give:
#	engine_do ARGS...	the engine's command line with $RT as the runtime of what it creates
#	services_port		the first of three free ports

# services_image TAR: the tree of `scripts/rootfs net` without what no server reads.
services_image() {
	tar -C "$("$repo/scripts/rootfs" net)" --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
		--exclude=./var/cache/apt --exclude=./var/lib/apt -cf "$1" .
}

# services_wanted: is one of them asked for? The image costs half a minute.
services_wanted() {
	local name
	for name in redis nginx postgres; do
		if [[ -n ${ONLY:-} ]]; then
			[[ $engine-$name =~ $ONLY ]] && return 0
		elif [[ -n ${MOAT_TEST_ENGINES:-} ]]; then
			return 0
		fi
	done
	return 1
}

# service NAME PORT ARGS...: container cc of the image, with $work/vol as /data and 127.0.0.1:$services_port published as PORT.
service() {
	local port=$1
	shift
	mkdir -p "$work/vol"
	engine_do run -d --name cc -p "127.0.0.1:$services_port:$port" -v "$work/vol:/data" services:1 "$@" >/dev/null
}

# redis COMMAND...: what the server answers over the published port, a line.
redis() {
	local line
	exec 7<>"/dev/tcp/127.0.0.1/$services_port" || return 1
	printf '%s\r\n' "$*" >&7
	IFS= read -r -t 5 line <&7
	case $line in
	'$-1'*) ;;
	'$'*) IFS= read -r -t 5 line <&7 ;;
	esac
	exec 7>&-
	printf '%s\n' "${line%$'\r'}"
}
redis_up() { [ "$(redis PING 2>/dev/null)" = +PONG ]; }

page() { busybox wget -qO- "http://127.0.0.1:$services_port/$1"; }

# sql QUERY: of the server in cc, over its socket.
sql() { engine_do exec cc psql -h /tmp -U postgres -Atqc "$1"; }

service_redis='
service 6379 redis-server --dir /data --appendonly yes --appendfsync always --save "" --protected-mode no
until_ok redis_up
redis SET one 1; redis INCRBY one 41
engine_do stop -t 5 cc >/dev/null; engine_do start cc >/dev/null; until_ok redis_up
redis GET one
for i in $(seq 50); do redis SET k$i $i; done | sort | uniq -c
engine_do kill -s KILL cc >/dev/null; engine_do wait cc; engine_do start cc >/dev/null; until_ok redis_up
redis GET one; redis GET k50; redis DBSIZE
engine_do rm -f cc >/dev/null; rm -rf "$work/vol"'

service_nginx='
mkdir -p "$work/vol/html"; echo first >"$work/vol/html/page"; head -c 3000000 /dev/urandom >"$work/vol/html/big"
echo "worker_processes 2; error_log /data/error; pid /tmp/pid; events {} http { access_log /data/access; server { listen 80; root /data/html; } }" >"$work/vol/conf"
service 80 nginx -c /data/conf -g "daemon off;"
until_ok page page; page page
page big | cmp - "$work/vol/html/big" && echo same
echo second >"$work/vol/html/page"; page page
engine_do stop -t 5 cc >/dev/null; engine_do start cc >/dev/null
until_ok page page; page page
engine_do kill -s KILL cc >/dev/null; engine_do wait cc; engine_do start cc >/dev/null
until_ok page page; page page
for i in 1 2 3 4 5 6 7 8; do page big | md5sum & done | sort -u | wc -l; wait
[ "$(grep -c "GET /page" "$work/vol/access")" -ge 6 ] && echo logged
engine_do rm -f cc >/dev/null; rm -rf "$work/vol"'

service_postgres='
cat >"$work/pg.sh" <<"END"
P=$(ls -d /usr/lib/postgresql/*/bin)
cd /tmp
[ -d /data/db ] || { install -d -o postgres /data/db && setpriv --reuid postgres --regid postgres --init-groups $P/initdb -D /data/db -A trust >/dev/null; }
exec setpriv --reuid postgres --regid postgres --init-groups $P/postgres -D /data/db -c unix_socket_directories=/tmp -c listen_addresses="*"
END
mkdir -p "$work/vol"; cp "$work/pg.sh" "$work/vol/pg.sh"
service 5432 sh /data/pg.sh
until_ok sql "select 1" || until_ok sql "select 1"
sql "create table t(i int primary key, s text)"; sql "insert into t select i, md5(i::text) from generate_series(1,5000) i"
sql "select sum(i), max(s) from t"
engine_do stop -t 20 cc >/dev/null; engine_do start cc >/dev/null; until_ok sql "select 1"
sql "select count(*) from t"
for i in $(seq 6001 6010); do sql "insert into t values ($i, 0) returning i"; done
engine_do kill -s KILL cc >/dev/null; engine_do wait cc
rm -f "$work/vol/db/postmaster.pid"
engine_do start cc >/dev/null; until_ok sql "select 1" || until_ok sql "select 1"
sql "select count(*), max(i) from t"; sql "select count(*) from t where s = md5(i::text)"
exec 7<>"/dev/tcp/127.0.0.1/$services_port" && echo published; exec 7>&-
engine_do rm -f cc >/dev/null; rm -rf "$work/vol"'

# service_cases: all three; the engine has loaded the image.
service_cases() {
	both redis "$service_redis"
	both nginx "$service_nginx"
	both postgres "$service_postgres"
}
