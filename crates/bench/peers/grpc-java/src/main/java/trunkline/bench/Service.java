package trunkline.bench;

import com.google.protobuf.ByteString;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import trunkline.bench.BenchOuterClass.Reply;
import trunkline.bench.BenchOuterClass.Request;

final class Service extends BenchGrpc.BenchImplBase {
  private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();

  @Override
  public void unary(Request request, StreamObserver<Reply> reply) {
    if (request.getSleepMillis() > 0) {
      timer.schedule(
          () -> answer(request, reply), request.getSleepMillis(), TimeUnit.MILLISECONDS);
      return;
    }
    answer(request, reply);
  }

  private static void answer(Request request, StreamObserver<Reply> reply) {
    if (request.getSpinMillis() > 0) {
      long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(request.getSpinMillis());
      while (System.nanoTime() - end < 0) {
        Thread.onSpinWait();
      }
    }
    if (request.getBlockMillis() > 0) {
      try {
        Thread.sleep(request.getBlockMillis());
      } catch (InterruptedException error) {
        Thread.currentThread().interrupt();
      }
    }
    reply.onNext(reply(request.getPayload()));
    reply.onCompleted();
  }

  /** Sends while the transport takes more, as in its example of manual flow control. */
  @Override
  public void serverStream(Request request, StreamObserver<Reply> observer) {
    ServerCallStreamObserver<Reply> replies = (ServerCallStreamObserver<Reply>) observer;
    replies.setOnReadyHandler(
        new Runnable() {
          private long left = Integer.toUnsignedLong(request.getReplies());
          private boolean completed;

          @Override
          public void run() {
            while (left > 0 && replies.isReady()) {
              left--;
              replies.onNext(reply(request.getPayload()));
            }
            if (left == 0 && !completed) {
              completed = true;
              replies.onCompleted();
            }
          }
        });
  }

  @Override
  public StreamObserver<Request> clientStream(StreamObserver<Reply> reply) {
    return new Requests(reply) {
      private ByteString last = ByteString.EMPTY;
      private long requests;

      @Override
      public void onNext(Request request) {
        last = request.getPayload();
        requests++;
      }

      @Override
      public void onCompleted() {
        reply.onNext(Reply.newBuilder().setPayload(last).setRequests(requests).build());
        reply.onCompleted();
      }
    };
  }

  @Override
  public StreamObserver<Request> bidi(StreamObserver<Reply> replies) {
    return new Requests(replies) {
      @Override
      public void onNext(Request request) {
        replies.onNext(reply(request.getPayload()));
      }

      @Override
      public void onCompleted() {
        replies.onCompleted();
      }
    };
  }

  private static Reply reply(ByteString payload) {
    return Reply.newBuilder().setPayload(payload).build();
  }

  /** The requests of a call, which ends when they fail. */
  private abstract static class Requests implements StreamObserver<Request> {
    private final StreamObserver<Reply> replies;

    Requests(StreamObserver<Reply> replies) {
      this.replies = replies;
    }

    @Override
    public void onError(Throwable error) {
      replies.onError(error);
    }
  }
}
