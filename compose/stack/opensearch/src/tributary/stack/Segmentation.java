package tributary.stack;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.lucene.analysis.th.ThaiTokenizer;
import org.opensearch.index.analysis.PreBuiltAnalyzerProviderFactory;

/**
 * Leaves out the analyzer {@code thai} on a Java runtime that cannot segment Thai. A small runtime lacks that language's
 * data, and the analyzer then refuses every new index, whatever its mapping.
 */
final class Segmentation {
    private Segmentation() {}

    static <T> Map<String, T> possible(Map<String, T> analyzers) {
        Map<String, T> kept = new TreeMap<>(analyzers);
        kept.keySet().removeIf(name -> !works(name));
        return kept;
    }

    static List<PreBuiltAnalyzerProviderFactory> possible(List<PreBuiltAnalyzerProviderFactory> factories) {
        return factories.stream().filter(factory -> works(factory.getName())).toList();
    }

    private static boolean works(String analyzer) {
        return ThaiTokenizer.DBBI_AVAILABLE || !analyzer.equals("thai");
    }
}
