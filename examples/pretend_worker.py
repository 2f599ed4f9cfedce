"""A worker that computes nothing: it says what a worker says, zeros for numbers, to test or measure a root."""

import socket
import threading

from dllama_proto.connection import Connection, Role
from dllama_proto.endpoint import Endpoint
from dllama_proto.events import Ack, AckKind, Closed, Event, NoEvent, PayloadChunk, SliceData, WeightsEnd
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig
from dllama_proto.sync_plan import LinkPlan, plan_link
from dllama_worker import Root

#: Which ack answers which message.
ANSWERS = {
    Greeting: AckKind.GREETING,
    NetConfig: AckKind.NET_CONFIG,
    NodeConfig: AckKind.NODE_CONFIG,
    WeightsEnd: AckKind.WEIGHTS,
}


def pretend(listener: socket.socket) -> None:
    """Serve one root: every message is answered, every slice is zeros."""
    sock, _ = listener.accept()
    with sock:
        connection = Connection(Role.WORKER)
        heard: dict[type, Event] = {}
        plan: LinkPlan | None = None
        while not isinstance(event := connection.next_event(), Closed):
            if isinstance(event, NoEvent):
                data = sock.recv(max(1, min(connection.n_wanted, 1 << 16)))
                connection.receive_data(data) if data else connection.receive_eof()
                continue
            if isinstance(event, PayloadChunk | SliceData):
                continue
            heard[type(event)] = event
            if isinstance(event, NodeConfig):
                plan = plan_link(heard[NetConfig], event, 0)
            if type(event) in ANSWERS:
                sock.sendall(connection.send(Ack(ANSWERS[type(event)])))
            if isinstance(event, ControlPacket) and plan is not None:
                for transfer in plan.sends:
                    for row in range(event.batch_size):
                        zeros = SliceData(transfer, row, memoryview(bytes(transfer.size)))
                        sock.sendall(connection.send(zeros))


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=pretend, args=(listener,))
        thread.start()
        with Root(workers=[Endpoint.of_socket(listener.getsockname())]) as root:
            completion = root.generate("ROMEO:", max_tokens=16, temperature=0)
            completion.finish()
            print(
                f"{len(completion.tokens)} tokens, {completion.timings.generated_tokens_per_second:.0f} tokens/s"
            )
        thread.join()
