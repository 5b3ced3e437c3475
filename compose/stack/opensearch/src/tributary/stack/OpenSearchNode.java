package tributary.stack;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import org.opensearch.Version;
import org.opensearch.env.Environment;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/**
 * One real OpenSearch node (REST over netty, transport, Lucene, translog) with its modules taken from the class path.
 *
 * <p>Argument: the home folder, whose {@code config/opensearch.yml} and {@code config/log4j2.properties} are read.
 */
public final class OpenSearchNode {
    private OpenSearchNode() {}

    /** The constructor that takes plugins is protected. */
    private static final class ClasspathNode extends Node {
        ClasspathNode(Environment environment, Collection<PluginInfo> plugins) {
            super(environment, plugins, true);
        }
    }

    /** A module's name, its plugin class, and the modules that it extends. */
    private record Module(String name, String plugin, List<String> extended) {
        PluginInfo info() {
            String version = Version.CURRENT.toString();
            return new PluginInfo(name, name, version, Version.CURRENT, "21", plugin, extended, false);
        }
    }

    /**
     * Only one module may name lang-painless as extended: on one flat class path its service look-up finds every Painless
     * extension, so a second one would load them all twice.
     */
    private static final List<Module> MODULES = List.of(
        new Module("transport-netty4", "org.opensearch.transport.Netty4ModulePlugin", List.of()),
        new Module("lang-painless", "org.opensearch.painless.PainlessModulePlugin", List.of()),
        new Module("analysis-common", "tributary.stack.CommonAnalysis", List.of("lang-painless")),
        new Module("mapper-extras", "org.opensearch.index.mapper.MapperExtrasModulePlugin", List.of()),
        new Module("reindex", "org.opensearch.index.reindex.ReindexModulePlugin", List.of()));

    public static void main(String[] arguments) throws Exception {
        List<PluginInfo> plugins = new ArrayList<>();
        for (Module module : MODULES) {
            plugins.add(module.info());
        }
        Life.run(new ClasspathNode(Life.environment(arguments[0]), plugins));
    }
}
