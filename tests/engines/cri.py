#!/usr/bin/python3
"""cri.py SOCKET HANDLER LOGDIR: a pod of two containers by containerd's CRI plugin, as a kubelet asks for it; prints what it saw.

Messages are those of runtime.v1 that are needed, by the field numbers of the public API. (The distribution's python3: grpc and protobuf are Debian's.)"""
import os
import sys
import time
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PATIENCE = int(os.environ.get('MOAT_TEST_PATIENCE', '1'))
F = descriptor_pb2.FieldDescriptorProto
SCALARS = {'str': F.TYPE_STRING, 'bytes': F.TYPE_BYTES, 'i64': F.TYPE_INT64, 'i32': F.TYPE_INT32, 'u32': F.TYPE_UINT32,
           'u64': F.TYPE_UINT64, 'bool': F.TYPE_BOOL}
# MESSAGE: NAME NUMBER TYPE, where TYPE[] repeats.
MESSAGES = {
    'Empty': '',
    'NamespaceOption': 'network 1 i32, pid 2 i32, ipc 3 i32',
    'LinuxSandboxSecurityContext': 'namespace_options 1 NamespaceOption',
    'LinuxPodSandboxConfig': 'cgroup_parent 1 str, security_context 2 LinuxSandboxSecurityContext',
    'PodSandboxMetadata': 'name 1 str, uid 2 str, namespace 3 str, attempt 4 u32',
    'PodSandboxConfig': 'metadata 1 PodSandboxMetadata, hostname 2 str, log_directory 3 str, linux 8 LinuxPodSandboxConfig',
    'RunPodSandboxRequest': 'config 1 PodSandboxConfig, runtime_handler 2 str',
    'RunPodSandboxResponse': 'pod_sandbox_id 1 str',
    'ContainerMetadata': 'name 1 str, attempt 2 u32',
    'ImageSpec': 'image 1 str',
    'LinuxContainerResources': 'memory_limit_in_bytes 4 i64',
    'LinuxContainerSecurityContext': 'namespace_options 3 NamespaceOption',
    'LinuxContainerConfig': 'resources 1 LinuxContainerResources, security_context 2 LinuxContainerSecurityContext',
    'ContainerConfig': 'metadata 1 ContainerMetadata, image 2 ImageSpec, command 3 str[], log_path 11 str, linux 15 LinuxContainerConfig',
    'CreateContainerRequest': 'pod_sandbox_id 1 str, config 2 ContainerConfig, sandbox_config 3 PodSandboxConfig',
    'CreateContainerResponse': 'container_id 1 str',
    'ContainerRequest': 'container_id 1 str, timeout 2 i64',
    'PodRequest': 'pod_sandbox_id 1 str',
    'ExecSyncRequest': 'container_id 1 str, cmd 2 str[], timeout 3 i64',
    'ExecSyncResponse': 'stdout 1 bytes, stderr 2 bytes, exit_code 3 i32',
    'Container': 'id 1 str, metadata 3 ContainerMetadata, state 6 i32',
    'ListContainersResponse': 'containers 1 Container[]',
    'ContainerStatus': 'id 1 str, state 3 i32, exit_code 7 i32, reason 10 str',
    'ContainerStatusResponse': 'status 1 ContainerStatus',
    'UInt64Value': 'value 1 u64',
    'CpuUsage': 'usage_core_nano_seconds 2 UInt64Value',
    'MemoryUsage': 'working_set_bytes 2 UInt64Value',
    'ContainerStats': 'cpu 2 CpuUsage, memory 3 MemoryUsage',
    'ContainerStatsResponse': 'stats 1 ContainerStats',
}
CALLS = {
    'RunPodSandbox': ('RunPodSandboxRequest', 'RunPodSandboxResponse'),
    'StopPodSandbox': ('PodRequest', 'Empty'),
    'RemovePodSandbox': ('PodRequest', 'Empty'),
    'CreateContainer': ('CreateContainerRequest', 'CreateContainerResponse'),
    'StartContainer': ('ContainerRequest', 'Empty'),
    'StopContainer': ('ContainerRequest', 'Empty'),
    'RemoveContainer': ('ContainerRequest', 'Empty'),
    'ListContainers': ('Empty', 'ListContainersResponse'),
    'ContainerStatus': ('ContainerRequest', 'ContainerStatusResponse'),
    'ContainerStats': ('ContainerRequest', 'ContainerStatsResponse'),
    'ExecSync': ('ExecSyncRequest', 'ExecSyncResponse'),
}
POD, CONTAINER, NODE = 0, 1, 2
STATES = ['created', 'running', 'exited', 'unknown']


def make_classes():
    file = descriptor_pb2.FileDescriptorProto(name='cri.proto', package='t', syntax='proto3')
    for name, fields in MESSAGES.items():
        m = file.message_type.add(name=name)
        for field in filter(None, fields.split(', ')):
            key, number, kind = field.split()
            f = m.field.add(name=key, number=int(number), label=F.LABEL_REPEATED if kind.endswith('[]') else F.LABEL_OPTIONAL)
            kind = kind.removesuffix('[]')
            f.type = SCALARS.get(kind, F.TYPE_MESSAGE)
            if f.type == F.TYPE_MESSAGE:
                f.type_name = '.t.' + kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return {n: factory.GetPrototype(pool.FindMessageTypeByName('t.' + n)) for n in MESSAGES}


class Cri:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel('unix://' + socket)
        self.classes = make_classes()

    def call(self, name, **fields):
        request, response = CALLS[name]
        rpc = self.channel.unary_unary('/runtime.v1.RuntimeService/' + name, request_serializer=lambda m: m.SerializeToString(),
                                       response_deserializer=self.classes[response].FromString)
        return rpc(self.classes[request](**fields), timeout=90 * PATIENCE)

    def pod(self, handler, parent, logs, network, pid):
        self.options = {'network': network, 'pid': pid, 'ipc': POD}
        self.config = {'metadata': {'name': 'p', 'uid': 'u-' + handler, 'namespace': 'n'}, 'hostname': '' if network == NODE else 'the-pod', 'log_directory': logs,
                       'linux': {'cgroup_parent': parent, 'security_context': {'namespace_options': self.options}}}
        self.id = self.call('RunPodSandbox', config=self.config, runtime_handler='' if handler == 'runc' else handler).pod_sandbox_id

    def add(self, name, *command, memory=0):
        config = {'metadata': {'name': name}, 'image': {'image': 'docker.io/library/bb:1'}, 'command': list(command), 'log_path': name + '.log',
                  'linux': {'resources': {'memory_limit_in_bytes': memory}, 'security_context': {'namespace_options': self.options}}}
        cid = self.call('CreateContainer', pod_sandbox_id=self.id, config=config, sandbox_config=self.config).container_id
        self.call('StartContainer', container_id=cid)
        return cid

    def sh(self, cid, script):
        r = self.call('ExecSync', container_id=cid, cmd=['/bin/sh', '-c', script], timeout=60 * PATIENCE)
        print('$', script, '\n' + (r.stdout + r.stderr).decode().rstrip(), f'\n[{r.exit_code}]')

    def states(self):
        print(*sorted(f'{c.metadata.name} {STATES[c.state]}' for c in self.call('ListContainers').containers), sep=', ')

    def ended(self, cid):
        """Waits until the plugin has heard of it."""
        end = time.monotonic() + 60 * PATIENCE
        while STATES[self.call('ContainerStatus', container_id=cid).status.state] != 'exited' and time.monotonic() < end:
            time.sleep(0.1)

    def end(self):
        for c in self.call('ListContainers').containers:
            self.call('RemoveContainer', container_id=c.id)
        self.call('StopPodSandbox', pod_sandbox_id=self.id)
        self.call('RemovePodSandbox', pod_sandbox_id=self.id)


SERVER = 'trap "exit 7" TERM; peer listen pod-name & while :; do nc -l -p 7777 -e echo served; done & while :; do sleep 0.1; done'


def two_containers(cri):
    one = cri.add('one', 'sh', '-c', SERVER, memory=100 << 20)
    two = cri.add('two', 'sleep', '1000')
    cri.states()
    cri.sh(two, 'for i in $(seq 300); do nc 127.0.0.1 7777 2>/dev/null && break; sleep 0.1; done')
    cri.sh(two, 'cat /proc/1/comm; hostname; ps | grep -c "[p]eer listen"')
    cri.sh(one, 'peer sem-put 5; touch /tmp/mine; hostname')
    cri.sh(two, 'peer sem-get; for i in $(seq 300); do peer connect pod-name >/tmp/said && break; sleep 0.1; done; cat /tmp/said; ls /tmp/mine 2>&1 | grep -c "No such"')
    cri.sh(two, 'kill -0 2 2>/dev/null; exit 9')
    stats = cri.call('ContainerStats', container_id=one).stats
    print('stats', stats.memory.working_set_bytes.value > 0, stats.cpu.usage_core_nano_seconds.value > 0)
    cri.call('StopContainer', container_id=one, timeout=10)
    status = cri.call('ContainerStatus', container_id=one).status
    print('stopped', STATES[status.state], status.exit_code)
    cri.call('RemoveContainer', container_id=one)
    cri.sh(two, 'nc -w 1 127.0.0.1 7777; echo $?; peer sem-get')
    one = cri.add('one', 'sh', '-c', 'exit 3')
    cri.ended(one)
    cri.states()
    # It ignores SIGTERM as pid 1 without a handler: killed when the time is over.
    cri.call('StopContainer', container_id=two, timeout=1)
    status = cri.call('ContainerStatus', container_id=two).status
    print('stopped', STATES[status.state], status.exit_code)


def shared_pids(cri):
    one = cri.add('one', 'sleep', '1111')
    two = cri.add('two', 'sleep', '2222')
    cri.sh(two, 'cat /proc/1/comm; ps | grep -o "sleep [12]*" | sort -u')
    cri.sh(two, 'kill -9 $(pgrep -f "^sleep 1111"); for i in $(seq 300); do pgrep -f "sleep 1111$" >/dev/null || break; sleep 0.1; done; ps | grep -c "sleep 1111$"')
    cri.ended(one)
    print('killed', cri.call('ContainerStatus', container_id=one).status.exit_code)


def main():
    socket, handler, logs, parent, what, network = sys.argv[1:]
    cri = Cri(socket)
    cri.pod(handler, parent, logs, {'cni': POD, 'host': NODE}[network], POD if what == 'shared_pids' else CONTAINER)
    try:
        {'two_containers': two_containers, 'shared_pids': shared_pids}[what](cri)
    finally:
        cri.end()
    print('left', len(cri.call('ListContainers').containers))


main()
