package tributary.stack;

import java.util.Collection;
import java.util.List;
import org.opensearch.env.Environment;
import org.opensearch.index.mapper.MapperExtrasPlugin;
import org.opensearch.index.reindex.ReindexPlugin;
import org.opensearch.node.Node;
import org.opensearch.painless.PainlessPlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.transport.Netty4Plugin;

/**
 * One real OpenSearch 2 node (REST over netty, transport, Lucene, translog) with its modules taken from the class path.
 *
 * <p>Argument: the home folder, whose {@code config/opensearch.yml} and {@code config/log4j2.properties} are read.
 */
public final class OpenSearchNode {
    private OpenSearchNode() {}

    /** The constructor that takes plugins is protected. */
    private static final class ClasspathNode extends Node {
        ClasspathNode(Environment environment, Collection<Class<? extends Plugin>> plugins) {
            super(environment, plugins, true);
        }
    }

    private static final List<Class<? extends Plugin>> MODULES = List.of(
        Netty4Plugin.class, PainlessPlugin.class, CommonAnalysis.class, MapperExtrasPlugin.class, ReindexPlugin.class);

    public static void main(String[] arguments) throws Exception {
        Life.run(new ClasspathNode(Life.environment(arguments[0]), MODULES));
    }
}
