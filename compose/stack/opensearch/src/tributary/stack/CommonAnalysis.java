package tributary.stack;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.th.ThaiTokenizer;
import org.opensearch.analysis.common.CommonAnalysisModulePlugin;
import org.opensearch.index.analysis.AnalyzerProvider;
import org.opensearch.index.analysis.PreBuiltAnalyzerProviderFactory;
import org.opensearch.indices.analysis.AnalysisModule.AnalysisProvider;

/**
 * The module analysis-common, without the analyzer {@code thai} on a Java runtime that cannot segment Thai. A small runtime
 * lacks that language's data, and the analyzer then refuses every new index, whatever its mapping.
 */
public final class CommonAnalysis extends CommonAnalysisModulePlugin {
    @Override
    public Map<String, AnalysisProvider<AnalyzerProvider<? extends Analyzer>>> getAnalyzers() {
        Map<String, AnalysisProvider<AnalyzerProvider<? extends Analyzer>>> analyzers = new TreeMap<>(super.getAnalyzers());
        analyzers.keySet().removeIf(name -> !works(name));
        return analyzers;
    }

    @Override
    public List<PreBuiltAnalyzerProviderFactory> getPreBuiltAnalyzerProviderFactories() {
        return super.getPreBuiltAnalyzerProviderFactories().stream().filter(factory -> works(factory.getName())).toList();
    }

    private static boolean works(String analyzer) {
        return ThaiTokenizer.DBBI_AVAILABLE || !analyzer.equals("thai");
    }
}
