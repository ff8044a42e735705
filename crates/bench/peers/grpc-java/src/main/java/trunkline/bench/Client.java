package trunkline.bench;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import trunkline.bench.BenchOuterClass.Reply;
import trunkline.bench.BenchOuterClass.Request;

/** Makes calls, each the next as soon as it has the reply to the last. */
final class Client {
  private final BenchGrpc.BenchStub stub;
  private final byte[] payload;
  private final AtomicInteger left;
  private final CountDownLatch done;

  private Client(BenchGrpc.BenchStub stub, int calls, int inFlight, int payload) {
    this.stub = stub;
    this.payload = new byte[payload];
    Arrays.fill(this.payload, (byte) 7);
    this.left = new AtomicInteger(calls);
    this.done = new CountDownLatch(inFlight);
  }

  static void run(String target, int calls, int inFlight, int payload)
      throws IOException, InterruptedException {
    ManagedChannel channel =
        NettyChannelBuilder.forTarget(target)
            .usePlaintext()
            .directExecutor()
            .maxInboundMessageSize(Main.RECEIVE_LIMIT)
            .build();
    BenchGrpc.BenchStub stub = BenchGrpc.newStub(channel);
    BufferedReader stdin = new BufferedReader(new InputStreamReader(System.in));
    new Client(stub, calls / 10, inFlight, payload).call(inFlight);
    sayAndWait("begin", stdin);
    new Client(stub, calls, inFlight, payload).call(inFlight);
    sayAndWait("end", stdin);
    channel.shutdownNow();
  }

  private void call(int inFlight) throws InterruptedException {
    for (int at = 0; at < inFlight; at++) {
      next();
    }
    done.await();
  }

  private void next() {
    if (left.getAndDecrement() <= 0) {
      done.countDown();
      return;
    }
    Request request = Request.newBuilder().setPayload(ByteString.copyFrom(payload)).build();
    stub.unary(
        request,
        new StreamObserver<Reply>() {
          @Override
          public void onNext(Reply reply) {
            if (reply.getPayload().size() != payload.length) {
              fail(reply.getPayload().size() + " bytes of payload instead of " + payload.length);
            }
          }

          @Override
          public void onError(Throwable error) {
            fail(error.toString());
          }

          @Override
          public void onCompleted() {
            next();
          }
        });
  }

  private static void fail(String why) {
    System.err.println(why);
    // Not exit: that would wait for hooks from within a thread they may need.
    Runtime.getRuntime().halt(1);
  }

  /** Says how far the client is, and waits until that has been noted. */
  private static void sayAndWait(String word, BufferedReader stdin) throws IOException {
    System.out.println(word);
    System.out.flush();
    stdin.readLine();
  }
}
