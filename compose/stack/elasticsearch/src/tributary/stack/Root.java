package tributary.stack;

import java.util.List;
import java.util.function.Supplier;
import org.apache.lucene.util.Version;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.XContentBuilder;

/** Stands in for the module rest-root: {@code GET /}. */
final class Root extends BaseRestHandler {
    private final Supplier<ClusterService> cluster;

    Root(Supplier<ClusterService> cluster) {
        this.cluster = cluster;
    }

    @Override public String getName() {
        return "main_action";
    }

    @Override public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
    }

    @Override protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
        return channel -> {
            Build build = Build.current();
            ClusterService here = cluster.get();
            XContentBuilder x = channel.newBuilder();
            x.startObject();
            x.field("name", here.getNodeName());
            x.field("cluster_name", here.getClusterName().value());
            x.field("cluster_uuid", here.state().metadata().clusterUUID());
            x.startObject("version");
            x.field("number", build.qualifiedVersion());
            x.field("build_flavor", build.flavor());
            x.field("build_type", build.type().displayName());
            x.field("build_hash", build.hash());
            x.field("build_date", build.date());
            x.field("build_snapshot", build.isSnapshot());
            x.field("lucene_version", Version.LATEST.toString());
            x.field("minimum_wire_compatibility_version", build.minWireCompatVersion());
            x.field("minimum_index_compatibility_version", build.minIndexCompatVersion());
            x.endObject();
            x.field("tagline", "You Know, for Search");
            x.endObject();
            channel.sendResponse(new RestResponse(RestStatus.OK, x));
        };
    }
}
