"""Classification and ranking of texts and pairs of texts: BertForSequenceClassification."""
