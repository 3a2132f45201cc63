"""A page that reads lesions with a trained run: ``service`` without Streamlit, ``app`` with it."""
